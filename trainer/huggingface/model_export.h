// Writes a checkpoint as a model that other programs load: safetensors, config.json, generation_config.json, and the
// tokenizer's files. The same weights make the same bytes: tensors stand in a fixed order, and no file holds a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "quant/format/dtype.h"
#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/config/run_config.h"
#include "trainer/huggingface/packed_weights.h"

namespace nibble {

struct ExportOptions {
  ExportFormat format = ExportFormat::huggingface;
  DType dtype = DType::bf16;  // of tensors that are not packed: bf16, to nearest even, or f32
  std::filesystem::path directory;
  uint64_t file_bytes = 5'000'000'000;  // a file of weights has more only if one tensor does
};

struct ExportSummary {
  std::string architecture;
  uint64_t parameters = 0;
  uint64_t packed = 0;  // parameters in NVFP4
  uint64_t bytes = 0;   // of the weights
  size_t weight_files = 0;
};

// Writes the directory, which appears complete, by rename. `config` is that of the checkpoint. Where the run has no
// tokenizer, its files are left out, with a warning. Throws ExitCode::cannot_create if the directory exists or cannot
// be written, ExitCode::bad_config for a model without an architecture (trainer/huggingface/architecture.h) and for a
// recipe that cannot be packed, ExitCode::bad_data for a tokenizer with more tokens than the head, and
// ExitCode::start_again after a signal to stop (dist/base/signals.h).
ExportSummary export_model(const CheckpointInfo& checkpoint, const RunConfig& config, const ExportOptions& options);

}  // namespace nibble
