// HealState: what the healer must remember over a restart: how far a scrub and the checks of single
// backends are, and what was known of each backend. The format is in fs/heal/FORMAT.md.
//
// What is to be repaired is not in it: the manifests themselves say that.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/disk.h"
#include "base/result.h"
#include "zstor/manifest.h"

namespace qsfs::fs {

// How its shards are being looked at.
enum class BackendCheck : std::uint8_t {
  kNone = 0,
  kSample = 1,  // It was restarted: is anything missing?
  kAll = 2,     // Something is: each of its shards is looked at.
};

struct KnownBackend {
  std::string
      instance_id;  // Of the server, when its shards were last looked at; empty: never told.
  std::uint64_t down_seconds = 0;  // Observed so far, without a break.
  BackendCheck check = BackendCheck::kNone;
  std::uint32_t next_segment = 0;  // Of kAll.
  bool operator==(const KnownBackend&) const = default;
};

struct ScrubState {
  bool is_running = false;
  bool is_paused = false;
  bool is_asked = false;  // By a command: not paced.
  bool reads_data = false;
  std::uint32_t next_segment = 0;
  std::uint64_t shards_checked = 0;
  std::uint64_t shards_bad = 0;
  WallTime started{};
  WallTime finished{};  // The last one that came to its end.
  bool operator==(const ScrubState&) const = default;
};

// Objects that are stored under old parameters are stored anew.
struct RecodeState {
  bool is_asked = false;
  std::uint32_t next_segment = 0;
  std::uint64_t objects = 0;  // That were stored anew, since it was asked for.
  std::uint64_t bytes = 0;    // Of their content.
  bool operator==(const RecodeState&) const = default;
};

struct HealState {
  ScrubState scrub;
  RecodeState recode;
  std::map<zstor::BackendId, KnownBackend> backends;
  bool operator==(const HealState&) const = default;

  [[nodiscard]] Buffer encode() const;
  // kCorruption for anything that encode() would not write; kUnsupported for a newer version.
  static Result<HealState> parse(Bytes encoded);

  static constexpr std::size_t kBackendsMax = 8192;
  static constexpr std::uint64_t kSizeMax = 4 * kMiB;
};

}  // namespace qsfs::fs
