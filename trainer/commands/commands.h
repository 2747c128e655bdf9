// The commands of nibble, in the order in which `nibble --help` lists them. A command is a file of this room and a row
// of the table: tokenize.cpp, plan.cpp, train.cpp, resume.cpp, control.cpp, fork.cpp, checkpoint.cpp, evaluate.cpp,
// report.cpp, watch.cpp, compare.cpp, generate.cpp, export.cpp, inspect.cpp, quantize.cpp, bias.cpp, bench.cpp,
// config.cpp, recipes.cpp and help.cpp (help, completion and man).
#pragma once

#include <array>

namespace CLI {
class App;
}

namespace nibble {

void add_tokenize_options(CLI::App& command);
void add_plan_options(CLI::App& command);
void add_train_options(CLI::App& command);
void add_resume_options(CLI::App& command);
void add_control_options(CLI::App& command);
void add_fork_options(CLI::App& command);
void add_checkpoint_options(CLI::App& command);
void add_evaluate_options(CLI::App& command);
void add_report_options(CLI::App& command);
void add_watch_options(CLI::App& command);
void add_compare_options(CLI::App& command);
void add_generate_options(CLI::App& command);
void add_export_options(CLI::App& command);
void add_inspect_options(CLI::App& command);
void add_quantize_options(CLI::App& command);
void add_bias_options(CLI::App& command);
void add_bench_options(CLI::App& command);
void add_config_options(CLI::App& command);
void add_recipes_options(CLI::App& command);
void add_help_options(CLI::App& command);
void add_completion_options(CLI::App& command);
void add_man_options(CLI::App& command);

struct Command {
  const char* name;
  const char* description;
  void (*add_options)(CLI::App& command);  // also sets what the command does: its final callback
};

inline constexpr auto all_commands = std::to_array<Command>({
    {"tokenize", "Turn text files into token shards, training a tokenizer on the way", &add_tokenize_options},
    {"plan", "Say whether a run fits, how long it takes and what it costs, before it starts", &add_plan_options},
    {"train", "Start a run", &add_train_options},
    {"resume", "Continue a run from its newest valid checkpoint", &add_resume_options},
    {"control", "Ask a run that trains for a checkpoint, another learning rate, or its end", &add_control_options},
    {"fork", "Begin another run at a checkpoint of a run, with all its state", &add_fork_options},
    {"checkpoint", "List, verify, compare and prune the checkpoints of runs", &add_checkpoint_options},
    {"evaluate", "Compute the validation loss of a checkpoint", &add_evaluate_options},
    {"report", "Write one page that shows runs: curves, gaps, telemetry", &add_report_options},
    {"watch", "Serve that page for runs that are training, and keep it up to date", &add_watch_options},
    {"compare", "Compare the loss curves of runs with a baseline's", &add_compare_options},
    {"generate", "Sample text from a checkpoint", &add_generate_options},
    {"export", "Write a checkpoint as a model that other programs load", &add_export_options},
    {"inspect", "Show what a token shard or a checkpoint holds, and check every byte", &add_inspect_options},
    {"quantize", "Quantise a tensor as a recipe does, and say what was lost", &add_quantize_options},
    {"bias", "Measure whether a recipe's gradients are unbiased", &add_bias_options},
    {"bench", "Measure this machine, every kernel against its limit, and training", &add_bench_options},
    {"config", "Check and show configurations", &add_config_options},
    {"recipes", "List the recipes, and say which one to take", &add_recipes_options},
    {"help", "Show the help of a command", &add_help_options},
    {"completion", "Print the completion of this command line for bash or zsh", &add_completion_options},
    {"man", "Print the man page", &add_man_options},
});

}  // namespace nibble
