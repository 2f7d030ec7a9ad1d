// Volume::open: makes a new volume, or finds out where an old one stands.
#include <sys/stat.h>

#include "fs/volume/volume_impl.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kRootMode = S_IFDIR | 0755;

Result<std::int64_t> read_counter(const MetaStore& store, const MetaKey& key,
                                  std::string_view name) {
  QSFS_ASSIGN(const std::optional<Buffer> encoded, store.get(key));
  if (!encoded) return 0;
  if (encoded->size() != sizeof(std::uint64_t)) {
    return fail(Errc::kCorruption, std::string(name) + " is not 8 bytes long");
  }
  return static_cast<std::int64_t>(load_le<std::uint64_t>(encoded->data()));
}

Timespec wall_time(const Clock& clock) {
  const WallTime wall = clock.wall();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(wall);
  return {.seconds = seconds.count(),
          .nanoseconds = static_cast<std::uint32_t>((wall - seconds).count())};
}

// One record: a volume exists with all of it or not at all.
Status make_volume(const std::array<std::byte, 16>& uuid, Log& log, const MetaStore& store,
                   const Clock& clock, Random& random) {
  QSFS_ASSIGN(const std::optional<Buffer> root, store.get(inode_key(kRootInode)));
  if (root)
    return fail(Errc::kCorruption, "metadata store: has a root directory but no volume row");
  VolumeRow volume{.uuid = uuid, .created = wall_time(clock)};
  random.fill(volume.name_hash_key);
  const InodeRow directory{.mode = kRootMode,
                           .nlink = 2,
                           .atime = volume.created,
                           .mtime = volume.created,
                           .ctime = volume.created,
                           .parent = kRootInode};
  Buffer next_inode;
  ByteWriter(next_inode).le(kRootInode + 1);
  MutationBatch batch;
  batch.put(volume_key(), volume.encode());
  batch.put(inode_key(kRootInode), directory.encode());
  batch.put(next_inode_key(), next_inode);
  batch.add(inode_count_key(), 1);
  QSFS_TRY(log.commit({.kind = RecordKind::kUser, .mutations = batch.encoded(), .payloads = {}}));
  return {};
}

}  // namespace

Result<std::unique_ptr<Volume>> Volume::open(const VolumeOptions& options,
                                             const std::array<std::byte, 16>& uuid, Log& log,
                                             MetaStore& store, PayloadReader& payload, Clock& clock,
                                             Random& random) {
  if (options.payload_len_max == 0 || options.payload_len_max % kSumBlock != 0 ||
      options.payload_len_max > kPayloadLenMax || options.name_hash_bits == 0 ||
      options.name_hash_bits > kNameHashBits) {
    return fail(Errc::kInvalidArgument, "volume: payload_len_max or name_hash_bits out of range");
  }
  QSFS_ASSIGN(std::optional<Buffer> encoded, store.get(volume_key()));
  if (!encoded) {
    if (options.read_only) return fail(Errc::kReadOnly, "the volume is empty and read-only");
    QSFS_TRY(make_volume(uuid, log, store, clock, random));
    QSFS_ASSIGN(encoded, store.get(volume_key()));
    if (!encoded) return fail(Errc::kInternal, "metadata store: lost the volume row");
  }
  VolumeImpl::State state;
  QSFS_ASSIGN(state.volume, VolumeRow::parse(*encoded));
  if (state.volume.uuid != uuid) {
    return fail(Errc::kCorruption, "the data directory belongs to volume " +
                                       to_hex(state.volume.uuid) + ", not to " + to_hex(uuid) +
                                       "; give the right configuration or another directory");
  }
  QSFS_ASSIGN(const std::int64_t next_inode,
              read_counter(store, next_inode_key(), "metadata store: next inode number"));
  if (next_inode <= static_cast<std::int64_t>(kRootInode)) {
    return fail(Errc::kCorruption, "metadata store: no next inode number");
  }
  state.next_inode = static_cast<InodeNumber>(next_inode);
  QSFS_ASSIGN(state.used_bytes, read_counter(store, usage_key(), "metadata store: usage counter"));
  QSFS_ASSIGN(state.inodes,
              read_counter(store, inode_count_key(), "metadata store: inode counter"));
  return std::make_unique<VolumeImpl>(
      VolumeImpl::Parts{
          .options = options, .log = log, .store = store, .payload = payload, .clock = clock},
      state);
}

}  // namespace qsfs::fs
