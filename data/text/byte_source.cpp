#include "data/text/byte_source.h"

#include <algorithm>
#include <cstring>

namespace nibble {

size_t FileSource::read(std::span<std::byte> data) {
  const size_t count = file_.read_some(offset_, data);
  offset_ += count;
  return count;
}

std::span<const std::byte> PeekableSource::peek(size_t count) {
  ahead_.erase(ahead_.begin(), ahead_.begin() + static_cast<std::ptrdiff_t>(begin_));
  begin_ = 0;
  size_t size = ahead_.size();
  if (size < count) ahead_.resize(count);
  while (size < count) {
    const size_t read = source_->read(std::span(ahead_).subspan(size));
    if (read == 0) break;
    size += read;
  }
  ahead_.resize(size);
  return std::span<const std::byte>(ahead_).first(std::min(count, size));
}

size_t PeekableSource::read(std::span<std::byte> data) {
  const size_t available = ahead_.size() - begin_;
  if (available == 0) return source_->read(data);
  const size_t count = std::min(available, data.size());
  std::memcpy(data.data(), ahead_.data() + begin_, count);
  begin_ += count;
  return count;
}

}  // namespace nibble
