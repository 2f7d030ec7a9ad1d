#include "tests/fs/volume_world.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <map>
#include <set>

#include "fs/volume/inode_flags.h"
#include "tests/fs/memory_meta_store.h"

namespace qsfs::fs {
namespace {

// The rows of a volume, decoded.
struct Rows {
  std::map<InodeNumber, InodeRow> inodes;
  std::map<InodeNumber, std::uint64_t> names;           // Entries that mean an inode.
  std::map<InodeNumber, std::uint64_t> entries;         // Entries in a directory.
  std::map<InodeNumber, std::uint64_t> subdirectories;  // Of a directory.
  std::map<InodeNumber, InodeNumber> holder;            // Directory to the one with its entry.
  std::map<InodeNumber, std::vector<Volume::FileExtent>> extents;
  std::map<InodeNumber, std::set<std::string>> xattrs;
  std::set<InodeNumber> orphans;
  std::map<std::uint32_t, std::int64_t> live;
  std::int64_t inode_count = 0;
  std::int64_t used_bytes = 0;
};

std::int64_t counter(Bytes value) {
  return static_cast<std::int64_t>(load_le<std::uint64_t>(value.data()));
}

Status take_row(Bytes key, Bytes value, Rows& rows) {
  const char tag = static_cast<char>(key[0]);
  const InodeNumber ino = key.size() >= 9 ? load_be<std::uint64_t>(key.data() + 1) : 0;
  if (tag == 'i') {
    QSFS_ASSIGN(rows.inodes[ino], InodeRow::parse(value));
  } else if (tag == 'd') {
    QSFS_ASSIGN(const std::vector<EntryRow> entries, parse_entries(value));
    bool any = false;
    for (const EntryRow& entry : entries) {
      if (entry.ino == 0) continue;
      any = true;
      ++rows.names[entry.ino];
      ++rows.entries[ino];
      if (entry.type != S_IFDIR) continue;
      ++rows.subdirectories[ino];
      rows.holder[entry.ino] = ino;
    }
    if (!any) return fail(Errc::kInternal, "a row of entries without entries");
  } else if (tag == 'e') {
    Volume::FileExtent extent{.file_offset = load_be<std::uint64_t>(key.data() + 9)};
    QSFS_ASSIGN(extent.extent, ExtentRow::parse(value));
    rows.extents[ino].push_back(extent);
  } else if (tag == 'x') {
    rows.xattrs[ino].insert(std::string(as_text(key.subspan(9))));
  } else if (tag == 'o') {
    rows.orphans.insert(ino);
  } else if (tag == 'l') {
    rows.live[load_be<std::uint32_t>(key.data() + 1)] = counter(value);
  } else if (tag == 'c') {
    rows.inode_count = counter(value);
  } else if (tag == 'u') {
    rows.used_bytes = counter(value);
  }
  return {};
}

// A directory that does not lead to the root would be lost with all that is in it.
std::string check_reachable(const Rows& rows) {
  for (const auto& [ino, holder] : rows.holder) {
    InodeNumber at = ino;
    std::size_t depth = 0;
    while (at != kRootInode && depth++ <= rows.holder.size()) {
      const auto up = rows.holder.find(at);
      // Removed with what was in it is impossible: only empty directories are removed.
      if (up == rows.holder.end()) return fmt::format("directory {} hangs in the air", ino);
      at = up->second;
    }
    if (at != kRootInode) return fmt::format("directory {} is in a loop", ino);
  }
  return {};
}

std::string check_links(const Rows& rows, InodeNumber ino, const InodeRow& row) {
  const auto count = [ino](const auto& map) {
    const auto found = map.find(ino);
    return found == map.end() ? std::uint64_t{0} : found->second;
  };
  if (S_ISDIR(row.mode)) {
    const bool named = ino == kRootInode || count(rows.names) == 1;
    const std::uint64_t links = named ? 2 + count(rows.subdirectories) : 0;
    if (row.nlink != links) return fmt::format("directory {}: nlink {}", ino, row.nlink);
    if (row.size != count(rows.entries)) return fmt::format("directory {}: entry count", ino);
    if (named && ino != kRootInode && rows.holder.at(ino) != row.parent) {
      return fmt::format("directory {}: parent", ino);
    }
  } else if (row.nlink != count(rows.names)) {
    return fmt::format("inode {}: nlink {}, names {}", ino, row.nlink, count(rows.names));
  }
  const bool marked = row.nlink == 0 || (row.flags & kInodeTruncating) != 0;
  if (marked != rows.orphans.contains(ino)) return fmt::format("inode {}: orphan row", ino);
  return {};
}

std::string check_content(const Rows& rows, InodeNumber ino, const InodeRow& row,
                          std::map<std::uint32_t, std::int64_t>& live) {
  std::uint64_t at = 0;
  std::uint64_t sum = 0;
  if (const auto found = rows.extents.find(ino); found != rows.extents.end()) {
    for (const auto& [offset, extent] : found->second) {
      if (offset < at) return fmt::format("inode {}: extents overlap at {}", ino, offset);
      at = offset + extent.length;
      sum += extent.length;
      live[number(extent.segment)] += static_cast<std::int64_t>(extent.length);
    }
  }
  if (sum != row.allocated_bytes) return fmt::format("inode {}: allocated bytes", ino);
  if (at > row.size && !S_ISDIR(row.mode) && (row.flags & kInodeTruncating) == 0) {
    return fmt::format("inode {}: extents behind its end", ino);
  }
  const auto xattrs = rows.xattrs.find(ino);
  const auto has = [&](std::string_view name) {
    return xattrs != rows.xattrs.end() && xattrs->second.contains(std::string(name));
  };
  const auto flag = [&](std::uint32_t bit) { return (row.flags & bit) != 0; };
  if ((xattrs != rows.xattrs.end() && !flag(kInodeHasXattrs)) ||
      has("security.capability") != flag(kInodeHasCapability) ||
      has("system.posix_acl_access") != flag(kInodeHasAccessAcl) ||
      has("system.posix_acl_default") != flag(kInodeHasDefaultAcl)) {
    return fmt::format("inode {}: flags of extended attributes", ino);
  }
  return {};
}

}  // namespace

Status TestPayload::read(SegmentId segment, std::uint32_t position, MutableBytes out) {
  ++reads;
  if (before_read) before_read();
  QSFS_ASSIGN(const std::shared_ptr<SegmentFile> file, files_.find(segment));
  if (file == nullptr) return fail(Errc::kNotFound, "segment " + std::to_string(number(segment)));
  return file->read(position, out);
}

void TestPayload::prefetch(SegmentId segment, std::uint32_t position, std::uint64_t length) {
  MutexLock lock(mu_);
  prefetched.push_back({segment, position, length});
}

Status TestPayload::admit_write(std::uint32_t /*length*/) {
  if (refuse_writes) return fail(Errc::kNoSpace, "the local disk is full");
  return {};
}

VolumeWorld::VolumeWorld(const WorldOptions& options, Disk* disk, std::string directory)
    : options_(options), disk_(disk), directory_(std::move(directory)), random_(options.seed) {
  if (disk_ == nullptr) sim_disk_ = std::make_unique<sim::SimDisk>(options.seed);
}

Status VolumeWorld::start() {
  QSFS_TRY(create_directories(any_disk(), directory_ + "/log"));
  QSFS_ASSIGN(files_, SegmentFiles::open(any_disk(), directory_ + "/log",
                                         options_.limits.segment_data_bytes));
  if (options_.store == StoreKind::kMemory) {
    store_ = std::make_unique<MemoryMetaStore>();
  } else {
    MetaStoreOptions store;
    store.directory = directory_ + "/meta";
    store.cache_bytes = options_.cache_bytes;
    store.memtable_bytes = options_.memtable_bytes;
    if (disk_ == nullptr) store.for_simulation();
    store.before_flush = [this]() -> Status {
      return log_ == nullptr ? Status{} : log_->sync(log_->tail());
    };
    QSFS_ASSIGN(store_, MetaStore::open(store, any_disk()));
  }
  LogOptions log;
  log.directory = directory_ + "/log";
  log.limits = options_.limits;
  log.background = disk_ != nullptr;
  log.on_seal = [](const SealedSegment& sealed, MutationBatch& batch) {
    batch.put(segment_key(sealed.id), SegmentRow{.state = SegmentState::kSealed,
                                                 .data_bytes = sealed.data_bytes,
                                                 .journal_bytes = sealed.journal_bytes,
                                                 .has_user_records = sealed.has_user_records}
                                          .encode());
  };
  QSFS_ASSIGN(Log::Opened opened, Log::open(log, any_disk(), clock_, *files_, store_->applied_lsn(),
                                            [this](const RecordView& view) -> Status {
                                              return store_->apply(view.mutations, view.end);
                                            }));
  log_ = std::move(opened.log);
  replay_ = std::move(opened.report);
  payload_ = std::make_unique<TestPayload>(*files_);
  QSFS_ASSIGN(volume_,
              Volume::open(options_.volume, kUuid, *log_, *store_, *payload_, clock_, random_));
  return {};
}

void VolumeWorld::stop() {
  volume_.reset();
  payload_.reset();
  // Before the log, which it asks to sync when it writes something out.
  store_.reset();
  log_.reset();
  files_.reset();
}

Status VolumeWorld::restart() {
  stop();
  return start();
}

void VolumeWorld::crash(sim::CrashKind kind) {
  sim_disk_->crash(kind);
  stop();
  sim_disk_ = sim_disk_->reopen();
}

std::string VolumeWorld::broken_invariant() {
  Rows rows;
  const auto [first, last] = MetaStore::all_keys();
  const auto it = store_->iterate(first, last);
  for (; it->valid(); it->next()) {
    const Status taken = take_row(it->key(), it->value(), rows);
    if (!taken) return taken.error().message();
  }
  std::map<std::uint32_t, std::int64_t> live;
  std::int64_t used = 0;
  for (const auto& [ino, row] : rows.inodes) {
    std::string broken = check_links(rows, ino, row);
    if (broken.empty()) broken = check_content(rows, ino, row, live);
    if (!broken.empty()) return broken;
    used += static_cast<std::int64_t>(row.allocated_bytes);
  }
  if (const std::string broken = check_reachable(rows); !broken.empty()) return broken;
  for (const auto* owners : {&rows.names, &rows.entries}) {
    for (const auto& [ino, count] : *owners) {
      if (!rows.inodes.contains(ino)) return fmt::format("entries of no inode {}", ino);
    }
  }
  for (const auto& [ino, extents] : rows.extents) {
    if (!rows.inodes.contains(ino)) return fmt::format("extents of no inode {}", ino);
  }
  for (const auto& [ino, names] : rows.xattrs) {
    if (!rows.inodes.contains(ino)) return fmt::format("attributes of no inode {}", ino);
  }
  for (const InodeNumber ino : rows.orphans) {
    if (!rows.inodes.contains(ino)) return fmt::format("orphan row of no inode {}", ino);
  }
  std::erase_if(rows.live, [](const auto& entry) { return entry.second == 0; });
  if (live != rows.live) return "live bytes of segments";
  if (used != rows.used_bytes) return "usage counter";
  if (std::cmp_not_equal(rows.inodes.size(), rows.inode_count)) return "inode counter";
  const VolumeUsage usage = volume_->usage();
  if (std::cmp_not_equal(usage.used_bytes, used) || usage.inodes != rows.inodes.size()) {
    return "usage()";
  }
  return {};
}

}  // namespace qsfs::fs
