#include "trainer/state/state_storage.h"

#include <fmt/format.h>

#include "dist/base/error.h"

namespace nibble {

void StateWriter::replicated(const std::string& name, const Tensor& values) {
  checkpoint_.replicated.push_back({name, values});
}

void StateWriter::sharded(const std::string& name, const Tensor& shard) {
  checkpoint_.arrays.push_back(shard_array(name, shard, *checkpoint_.owned, rank_));
}

void StateWriter::number(const std::string& name, uint64_t value) {
  checkpoint_.numbers.push_back({name, value});
}

std::vector<int64_t> StateReader::shape_of(const std::string& name) const {
  const CheckpointInfo::Replicated* const saved = checkpoint_.find_replicated(name);
  return saved == nullptr ? std::vector<int64_t>() : saved->shape;
}

void StateReader::replicated(const std::string& name, const Tensor& destination) const {
  load_replicated(checkpoint_, name, destination);
}

void StateReader::sharded(const std::string& name, const Tensor& shard) const {
  NIBBLE_CHECK(!read_only(), "a model that does not train has no shard");
  load_array(checkpoint_, owned_->layout(), shard_array(name, shard, *owned_, rank_));
}

uint64_t StateReader::number(const std::string& name) const {
  return checkpoint_.number(name);
}

void StateReader::refuse(const std::string& what) const {
  throw Error(ExitCode::bad_data, fmt::format("the checkpoint {}: {}", checkpoint_.directory.string(), what),
              "use the recipe in its config.yaml");
}

}  // namespace nibble
