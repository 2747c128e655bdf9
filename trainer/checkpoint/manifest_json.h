// The part that the readers of both versions of manifest.json share (manifest.cpp, manifest_version_1.cpp): members
// with their checks. All functions throw ExitCode::bad_data with what is wrong; a member that is missing or of another
// JSON type is an exception of nlohmann's, which parse_manifest() turns into such an error.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "quant/format/dtype.h"
#include "trainer/checkpoint/manifest.h"

namespace nibble {

using Json = nlohmann::ordered_json;

void require(bool good, const std::string& complaint);

// Returns whether a name may become an HDF5 link: it has no separators and does not start with a dot.
bool is_plain_name(std::string_view name);
// Returns whether all parts of a name between slashes are plain names.
bool is_group_name(std::string_view name);
bool is_hash(std::string_view text);  // 32 digits

uint64_t unsigned_of(const Json& value, const std::string& what);
uint64_t unsigned_member(const Json& object, const char* key);
DType dtype_of(const std::string& name);
// Reads the shape of the array `name` and computes the number of its elements.
std::vector<int64_t> parse_shape(const Json& extents, const std::string& name, uint64_t& count);
// Reads name, shape and offset, and sets `next_offset` to the end of the tensor, where the next one may begin.
TensorLayout parse_tensor(const Json& object, uint64_t& next_offset);
// Checks what a layout demands of tensors as a whole, and returns it: all in one bucket.
Layout layout_of(std::vector<TensorLayout> tensors, uint64_t elements);
CheckpointInfo::Replicated parse_replicated(const Json& object, DType dtype);
// Reads names, sizes and hashes of all files: those of `info`'s rank files come last.
std::vector<ManifestFile> parse_files(const Json& files, size_t rank_files);

// Reads the members of a manifest of version 1.
Manifest parse_version_1(const Json& root);

}  // namespace nibble
