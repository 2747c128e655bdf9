// The model that a run starts from (model.from): its shape, its tensors and its tokenizer.
//
// It is a directory as Hugging Face's library saves models (huggingface_source.cpp), or a checkpoint of nibble
// (checkpoint_source.cpp): RUN_DIR, which means the newest one, RUN_DIR@STEP, or the checkpoint's own directory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/ranks/communicator.h"
#include "dist/zero/placement.h"
#include "model/config.h"
#include "trainer/huggingface/names.h"

namespace nibble {

struct SourceTensor {
  std::string name;
  std::vector<int64_t> shape;
};

class ModelSource {
 public:
  virtual ~ModelSource() = default;
  ModelSource(const ModelSource&) = delete;
  ModelSource& operator=(const ModelSource&) = delete;

  const std::string& location() const { return location_; }
  const ModelConfig& model() const { return model_; }
  const std::vector<SourceTensor>& tensors() const { return tensors_; }
  // Returns the file of its tokenizer; empty if there is none.
  virtual std::filesystem::path tokenizer() const = 0;
  // Returns the tensors that the source would have if its model had this shape and layout.
  virtual std::vector<NamedPart> parts(const ModelConfig& model, const Layout& layout) const = 0;
  // Reads elements of a tensor from `first` on.
  virtual void read(size_t tensor, uint64_t first, std::span<float> values) const = 0;

 protected:
  explicit ModelSource(std::string location) : location_(std::move(location)) {}
  ModelConfig model_;
  std::vector<SourceTensor> tensors_;

 private:
  std::string location_;
};

// Returns the shape of the model at a location without opening its weights. Throws ExitCode::missing_input if there is
// nothing, ExitCode::bad_data for a directory of another kind, and what read_config_json() throws.
ModelConfig model_at(const std::string& location);

// Collective. Opens a source. Throws as model_at() does, and ExitCode::bad_data for damaged files.
std::unique_ptr<ModelSource> open_model_source(Communicator& communicator, const std::string& location);

// The weights that a run takes from a source.
class TakenWeights {
 public:
  // Compares the source's tensors with those of the run's model. Throws ExitCode::bad_data, with the names, for tensors
  // that are missing, left over or of another shape, unless `skip` (globs, quant/recipe/glob.h) names them; it also
  // leaves out tensors that fit.
  TakenWeights(const ModelSource& source, const ModelConfig& model, const Layout& layout, const std::string& skip);

  // Overwrites what the source has of the weights that a rank owns; `values` is the rank's buffer. Throws
  // ExitCode::bad_data for a weight that is not finite.
  void read(const Placement& owned, int rank, std::span<float> values) const;
  // Returns whether a tensor of the layout, or a part of it, is taken.
  bool takes(size_t tensor) const { return !taken_[tensor].empty(); }
  // Returns the names of the source's tensors in whose place the run begins with fresh weights.
  const std::vector<std::string>& fresh() const { return fresh_; }

 private:
  struct Taken {
    size_t source_tensor = 0;
    NamedPart part;
  };
  const ModelSource& source_;
  std::vector<std::vector<Taken>> taken_;  // [tensors of the layout]
  std::vector<std::string> fresh_;
};

}  // namespace nibble
