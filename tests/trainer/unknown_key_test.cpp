#include "trainer/config/unknown_key.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dist/base/error.h"
#include "trainer/config/field_table.h"

namespace nibble {
namespace {

std::string complaint(const std::string& key) {
  try {
    refuse_unknown_key({}, key);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    return std::string(error.what()) + "\n" + error.remedy();
  }
}

// The names that people bring along from other programs, with the key each of them must lead to.
TEST(UnknownKey, UsualNamesLeadToOurs) {
  const std::vector<std::pair<std::string_view, std::vector<std::string_view>>> names = {
      {"model.pattern", {"num_layers", "n_layer", "num_hidden_layers"}},
      {"model.hidden_size", {"d_model", "n_embd", "hidden_dim"}},
      {"model.query_heads", {"num_attention_heads", "n_head", "num_heads"}},
      {"model.kv_heads", {"num_key_value_heads", "n_kv_heads", "num_query_groups"}},
      {"model.intermediate_size", {"ffn_hidden_size", "ffn_dim"}},
      {"model.sequence_length", {"seq_length", "seq_len", "max_seq_len", "block_size"}},
      {"model.norm_epsilon", {"rms_norm_eps", "norm_eps"}},
      {"model.tied_head", {"tie_word_embeddings"}},
      {"model.rope_theta", {"rotary_base"}},
      {"optimizer.learning_rate", {"lr"}},
      {"optimizer.clip_norm", {"grad_clip", "clip_grad", "max_grad_norm"}},
      {"optimizer.beta1", {"adam_beta1"}},
      {"optimizer.beta2", {"adam_beta2"}},
      {"schedule.min_ratio", {"min_lr"}},
      {"schedule.warmup_steps", {"warmup_iters", "lr_warmup_steps"}},
      {"schedule.kind", {"lr_decay_style", "lr_scheduler_type"}},
      {"train.tokens_per_step", {"global_batch_size"}},
      {"train.micro_batch_sequences", {"micro_batch_size"}},
      {"train.steps", {"train_iters", "max_steps", "max_iters"}},
      {"checkpoint.every", {"save_interval", "save_steps"}},
      {"eval.every", {"eval_interval", "eval_steps"}},
      {"log.every", {"log_interval", "logging_steps"}},
      {"data.train", {"data_path"}},
      {"run.dir", {"output_dir"}},
  };
  for (const auto& [ours, theirs] : names) {
    EXPECT_NE(find_field(ours), nullptr) << ours;
    for (const std::string_view usual : theirs) {
      const std::string wanted = "did you mean \"" + std::string(ours) + "\"?";
      EXPECT_NE(complaint(std::string(usual)).find(wanted), std::string::npos) << complaint(std::string(usual));
      EXPECT_NE(complaint("train." + std::string(usual)).find(wanted), std::string::npos) << usual;
    }
  }
}

TEST(UnknownKey, NamesWithAnotherUnitSayHowToConvert) {
  EXPECT_NE(complaint("num-layers").find("(*-)xN"), std::string::npos);
  EXPECT_NE(complaint("global_batch_size").find("times model.sequence_length"), std::string::npos);
  EXPECT_NE(complaint("min_lr").find("divided by the peak"), std::string::npos);
}

}  // namespace
}  // namespace nibble
