#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/base/signals.h"
#include "dist/base/text.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/commands/commands.h"
#include "trainer/huggingface/model_export.h"
#include "trainer/inference/inference_model.h"

namespace nibble {
namespace {

struct ExportCommand {
  std::string path;
  std::optional<uint64_t> step;
  std::string format = "huggingface";
  std::string output;
  std::string dtype;
  uint64_t file_bytes = ExportOptions().file_bytes;
  std::vector<std::string> overrides;
};

template <NamedEnum Enum>
Enum choice(const char* option, const std::string& name) {
  if (const std::optional<Enum> value = parse_name<Enum>(name)) return *value;
  const auto all = all_names<Enum>();
  const std::vector<std::string_view> names(all.begin(), all.end());
  throw Error(ExitCode::usage, fmt::format("{}: unknown value {}", option, unknown_word(name, names)),
              fmt::format("use {}", fmt::join(names, ", ")));
}

DType dtype_of(const ExportCommand& command, const RunConfig& config) {
  if (command.dtype.empty()) return config.model.dtype;
  if (command.dtype == "bf16") return DType::bf16;
  if (command.dtype == "fp32") return DType::f32;
  throw Error(ExitCode::usage, fmt::format("--dtype: unknown value {}", shown(command.dtype)), "use bf16, fp32");
}

void run_export(const ExportCommand& command) {
  const auto format = choice<ExportFormat>("--format", command.format);
  install_signal_handlers();
  SelfCommunicator communicator;
  const std::filesystem::path path = command.path;
  const CheckpointInfo checkpoint =
      command.step ? find_checkpoint_of_step(communicator, path, *command.step) : open_checkpoint(communicator, path);
  const RunConfig config = config_of_checkpoint(checkpoint, parse_overrides(command.overrides));
  const DType dtype = dtype_of(command, config);
  if (format != ExportFormat::huggingface && dtype != DType::bf16) {
    throw Error(ExitCode::usage, fmt::format("--format {} has BF16 beside its packed weights", command.format),
                "give --dtype bf16");
  }
  const ExportSummary summary =
      export_model(checkpoint, config,
                   {.format = format, .dtype = dtype, .directory = command.output, .file_bytes = command.file_bytes});
  fmt::print("{}: {} with {} parameters of step {}, {} bytes in {} file{}\n", command.output, summary.architecture,
             with_thousands(summary.parameters), checkpoint.step, with_thousands(summary.bytes), summary.weight_files,
             summary.weight_files == 1 ? "" : "s");
  if (format == ExportFormat::huggingface) return;
  fmt::print("{} parameters are packed in NVFP4 as the recipe {} rounds them\n", with_thousands(summary.packed),
             config.recipe.name);
}

}  // namespace

void add_export_options(CLI::App& command) {
  auto options = std::make_shared<ExportCommand>();
  command
      .add_option("RUN_DIR", options->path,
                  "Directory of a run (its newest checkpoint), RUN_DIR@STEP, or directory of one checkpoint")
      ->required();
  command.add_option("--step", options->step, "Export the run's checkpoint of this step");
  command
      .add_option("--format", options->format,
                  "As Hugging Face's libraries write a model, or with NVFP4 weights for serving [huggingface]")
      ->type_name("huggingface|compressed-tensors|modelopt");
  command.add_option("--output", options->output, "Directory to make")->required();
  command.add_option("--dtype", options->dtype, "Of the weights [that of the checkpoint]")->type_name("bf16|fp32");
  command
      .add_option("--file-size", options->file_bytes,
                  "Cut the weights into files of at most this size: 500MB, 5GB [5GB]")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true));
  command.add_option("--set", options->overrides, "Override a key: --set data.tokenizer=tokenizer.json")
      ->allow_extra_args(false);
  command.footer(
      "Examples:\n"
      "  nibble export runs/nvfp4 --output exports/nvfp4\n"
      "  nibble export runs/nvfp4 --step 1000 --format compressed-tensors --output exports/packed\n"
      "In Python, AutoModelForCausalLM.from_pretrained(\"exports/nvfp4\") loads it.");
  command.final_callback([options] { run_export(*options); });
}

}  // namespace nibble
