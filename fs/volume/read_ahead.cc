#include "fs/volume/read_ahead.h"

#include <algorithm>

namespace qsfs::fs {
namespace {

constexpr std::uint64_t kSmallReadLen = 64 * kKiB;
constexpr unsigned kContinuedMin = 1;
constexpr unsigned kContinuedMinSmall = 2;
// The kernel hands out one reader's requests to several threads: large ones may arrive out of
// order, within so many of their lengths.
constexpr std::uint64_t kReorderedReads = 4;

}  // namespace

bool ReadAhead::is_next(const Stream& stream, InodeNumber ino, std::uint64_t offset,
                        std::uint64_t length) {
  if (stream.ino != ino) return false;
  if (offset == stream.next) return true;
  if (stream.window == 0 || length < kSmallReadLen) return false;
  const std::uint64_t distance = offset > stream.next ? offset - stream.next : stream.next - offset;
  return distance <= kReorderedReads * length;
}

ReadAhead::Range ReadAhead::note_read(InodeNumber ino, std::uint64_t offset, std::uint64_t length) {
  if (window_max_ == 0 || length == 0) return {};
  const std::uint64_t end = offset + length;
  MutexLock lock(mu_);
  const auto set = std::span(streams_).subspan((ino % (kStreamsMax / kWays)) * kWays, kWays);
  const auto found = std::ranges::find_if(
      set, [&](const Stream& stream) { return is_next(stream, ino, offset, length); });
  ++tick_;
  if (found == set.end()) {
    Stream& oldest = *std::ranges::min_element(set, {}, &Stream::used_at);
    oldest = {.ino = ino, .next = end, .fetched = end, .window = 0, .used_at = tick_};
    return {};
  }
  Stream& stream = *found;
  stream.used_at = tick_;
  stream.next = std::max(stream.next, end);
  stream.fetched = std::max(stream.fetched, stream.next);
  ++stream.continued;
  if (stream.continued < (length < kSmallReadLen ? kContinuedMinSmall : kContinuedMin)) return {};
  if (stream.window == 0) {
    stream.window = std::min(kWindowFirst, window_max_);
  } else if (stream.fetched - stream.next >= stream.window / 2) {
    return {};
  } else {
    stream.window = std::min(stream.window * 2, window_max_);
  }
  const Range range{.begin = stream.fetched, .end = stream.next + stream.window};
  stream.fetched = std::max(stream.fetched, range.end);
  return range.begin < range.end ? range : Range{};
}

}  // namespace qsfs::fs
