// The ids of the objects that an archive is made of. The format is in fs/archive/FORMAT.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fs/log/lsn.h"
#include "zstor/manifest.h"

namespace qsfs::fs {

// The longest journal that is read back into memory; a journal is sealed long before that.
inline constexpr std::uint64_t kArchivedJournalMax = 256 * kMiB;

enum class ObjectKind : std::uint8_t { kData = 1, kJournal = 2, kCheckpoint = 3 };

struct LogObject {
  ObjectKind kind = ObjectKind::kData;
  // Of the owner that stored it: two machines that both believe to own the volume never write to
  // the same object.
  std::uint64_t epoch = 0;
  SegmentId segment{};

  [[nodiscard]] zstor::ObjectId id() const {
    zstor::ObjectId made;
    made.bytes[0] = static_cast<std::byte>(kind);
    store_be(made.bytes.data() + 4, epoch);
    store_be(made.bytes.data() + 12, number(segment));
    return made;
  }
  // What its manifest is labelled with.
  [[nodiscard]] std::string label() const {
    const std::string name = "segment " + std::to_string(number(segment));
    switch (kind) {
      case ObjectKind::kData:
        return name + " data";
      case ObjectKind::kJournal:
        return name + " journal";
      case ObjectKind::kCheckpoint:
        return "checkpoint after " + name;
    }
    return name;
  }
  // Nullopt for an id of another origin.
  static std::optional<LogObject> parse(const zstor::ObjectId& id) {
    const auto kind = static_cast<std::uint8_t>(id.bytes[0]);
    const bool has_padding =
        id.bytes[1] == std::byte{} && id.bytes[2] == std::byte{} && id.bytes[3] == std::byte{};
    if (kind < 1 || kind > 3 || !has_padding) return std::nullopt;
    return LogObject{.kind = static_cast<ObjectKind>(kind),
                     .epoch = load_be<std::uint64_t>(id.bytes.data() + 4),
                     .segment = SegmentId{load_be<std::uint32_t>(id.bytes.data() + 12)}};
  }
};

}  // namespace qsfs::fs
