#include "fs/heal/heal_state.h"

#include <algorithm>

#include "base/crc32c.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kMagic = 0x32485351;    // "QSH2"
constexpr std::uint32_t kMagicV1 = 0x31485351;  // "QSH1": without recode.
constexpr std::size_t kInstanceIdLenMax = 256;
enum ScrubFlag : std::uint8_t { kRunning = 1, kPaused = 2, kAsked = 4, kReadsData = 8 };

}  // namespace

Buffer HealState::encode() const {
  Buffer out;
  ByteWriter writer(out);
  writer.le(kMagic);
  writer.le(static_cast<std::uint8_t>(
      (scrub.is_running ? kRunning : 0) | (scrub.is_paused ? kPaused : 0) |
      (scrub.is_asked ? kAsked : 0) | (scrub.reads_data ? kReadsData : 0)));
  writer.le(scrub.next_segment);
  writer.le(scrub.shards_checked);
  writer.le(scrub.shards_bad);
  writer.le(static_cast<std::uint64_t>(scrub.started.count()));
  writer.le(static_cast<std::uint64_t>(scrub.finished.count()));
  writer.le(static_cast<std::uint8_t>(recode.is_asked ? 1 : 0));
  writer.le(recode.next_segment);
  writer.le(recode.objects);
  writer.le(recode.bytes);
  writer.le(static_cast<std::uint32_t>(backends.size()));
  for (const auto& [id, known] : backends) {
    writer.bytes(id);
    writer.le(static_cast<std::uint8_t>(known.check));
    writer.le(known.next_segment);
    writer.le(known.down_seconds);
    writer.sized(as_bytes(known.instance_id));
  }
  writer.le(crc32c(out));
  return out;
}

Result<HealState> HealState::parse(Bytes encoded) {
  const auto bad = [] { return fail(Errc::kCorruption, "malformed"); };
  ByteReader in(encoded);
  const auto magic = in.le<std::uint32_t>();
  const auto flags = in.le<std::uint8_t>();
  HealState state;
  state.scrub.is_running = (flags & kRunning) != 0;
  state.scrub.is_paused = (flags & kPaused) != 0;
  state.scrub.is_asked = (flags & kAsked) != 0;
  state.scrub.reads_data = (flags & kReadsData) != 0;
  state.scrub.next_segment = in.le<std::uint32_t>();
  state.scrub.shards_checked = in.le<std::uint64_t>();
  state.scrub.shards_bad = in.le<std::uint64_t>();
  state.scrub.started = WallTime(static_cast<std::int64_t>(in.le<std::uint64_t>()));
  state.scrub.finished = WallTime(static_cast<std::int64_t>(in.le<std::uint64_t>()));
  if (magic == kMagic) {
    const auto asked = in.le<std::uint8_t>();
    if (asked > 1) return bad();
    state.recode.is_asked = asked == 1;
    state.recode.next_segment = in.le<std::uint32_t>();
    state.recode.objects = in.le<std::uint64_t>();
    state.recode.bytes = in.le<std::uint64_t>();
  }
  const auto count = in.le<std::uint32_t>();
  if (in.failed() || (magic != kMagic && magic != kMagicV1) || flags > 15 || count > kBackendsMax) {
    return bad();
  }
  for (std::uint32_t i = 0; i < count && !in.failed(); ++i) {
    zstor::BackendId id{};
    std::ranges::copy(in.bytes(id.size()), id.begin());
    KnownBackend known;
    const auto check = in.le<std::uint8_t>();
    known.check = static_cast<BackendCheck>(check);
    known.next_segment = in.le<std::uint32_t>();
    known.down_seconds = in.le<std::uint64_t>();
    const Bytes instance = in.sized();
    if (in.failed() || check > 2 || instance.size() > kInstanceIdLenMax) return bad();
    known.instance_id = as_text(instance);
    if (!state.backends.emplace(id, std::move(known)).second) return bad();
  }
  const auto crc = in.le<std::uint32_t>();
  if (!in.at_end() || crc != crc32c(encoded.first(encoded.size() - sizeof crc))) return bad();
  return state;
}

}  // namespace qsfs::fs
