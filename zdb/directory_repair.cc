#include "zdb/directory_repair.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <unordered_set>

#include "zdb/data_file.h"
#include "zdb/entry_walker.h"
#include "zdb/file_merge.h"
#include "zdb/header_guess.h"
#include "zdb/recovery.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {
namespace {

// The directory that the namespace "default" always has.
constexpr std::string_view kDefaultDirectory = "00000001";
constexpr std::size_t kMadeUpPasswordBytes = 16;

bool is_missing(const Error& error) { return error.code == Errc::kNotFound; }

class Repairer {
 public:
  Repairer(Disk& disk, Random& random, RepairReport& report)
      : disk_(disk), random_(random), report_(report) {}

  Status repair_mark(const std::string& directory) {
    const std::string mark = directory + "/format";
    const auto content = read_whole_file(disk_, mark, kSettingsFileLenMax);
    if (!content && !is_missing(content.error()) && content.error().code != Errc::kTooBig) {
      return std::unexpected(content.error());
    }
    const Status good = content ? check_format_file(*content, mark) : fail(Errc::kCorruption, mark);
    if (good) return {};
    if (good.error().code != Errc::kCorruption) return good;
    done(mark + ": made anew");
    return write_file_atomically(disk_, mark, encode_format_file());
  }

  Status repair_namespace(const std::string& directory, const std::string& number) {
    QSFS_ASSIGN(const std::vector<std::string> names, disk_.list(directory));
    std::set<std::uint32_t> ids;
    for (const std::string& name : names) {
      if (const auto id = data_file_number(name)) ids.insert(*id);
    }
    QSFS_ASSIGN(const bool is_kept, repair_settings(directory, number, !ids.empty()));
    if (!is_kept) return {};
    const std::size_t before = ids.size();
    QSFS_TRY(remove_obsolete_files(disk_, directory, ids));
    if (ids.size() < before) done(directory + ": files that compaction had replaced are removed");
    std::uint64_t next_sequence = 0;
    for (const std::uint32_t id : ids) {
      QSFS_TRY(repair_file(directory, id, id == *ids.rbegin(), next_sequence));
    }
    return {};
  }

 private:
  void done(std::string text) {
    ++report_.action_count;
    if (report_.actions.size() < kCheckFindingsMax) report_.actions.push_back(std::move(text));
  }

  // False: the next start removes the directory.
  Result<bool> repair_settings(const std::string& directory, const std::string& number,
                               bool holds_data) {
    const std::string path = directory + "/settings";
    const auto content = read_whole_file(disk_, path, kSettingsFileLenMax);
    if (!content && !is_missing(content.error()) && content.error().code != Errc::kTooBig) {
      return std::unexpected(content.error());
    }
    if (!content && is_missing(content.error()) && !holds_data) return false;
    const Result<StoredSettings> stored =
        content ? decode_settings(*content, path) : fail(Errc::kCorruption, path);
    if (stored) {
      mode_ = stored->settings.mode;
      return !stored->dropped;
    }
    if (stored.error().code != Errc::kCorruption) return std::unexpected(stored.error());
    // Nobody knows whether it had a password: nobody gets in until an administrator says so.
    std::array<std::byte, kMadeUpPasswordBytes> password;
    random_.fill(password);
    mode_ = NamespaceMode::kUser;
    const bool is_default = number == kDefaultDirectory;
    const StoredSettings made{
        .name = is_default ? "default" : "recovered-" + number,
        .settings = {.mode = mode_, .password = to_hex(password), .is_public = false}};
    done(path + ": made anew for \"" + made.name +
         "\", with a password that nobody knows; set another with NSSET");
    QSFS_TRY(write_file_atomically(disk_, path, encode_settings(made)));
    return true;
  }

  Status repair_file(const std::string& directory, std::uint32_t id, bool is_newest,
                     std::uint64_t& next_sequence) {
    DataFile file(id, directory);
    const auto data = disk_.open(file.data_path, OpenMode::kReadWrite);
    if (!data && is_missing(data.error())) return {};  // Its keys stay known as lost.
    if (!data) return std::unexpected(data.error());
    QSFS_ASSIGN(const std::optional<FileHeader> header, choose_header(**data, file));
    if (header) {
      mode_ = header->mode;
      QSFS_TRY(repair_data_header(**data, file, *header));
      QSFS_ASSIGN(const bool is_complete, index_is_complete(**data, file, *header));
      if (!is_complete) QSFS_TRY(remove_index(file));
    } else {
      QSFS_ASSIGN(const std::uint64_t size, (*data)->size());
      if (!is_newest || size > kFileHeaderLen) return set_aside(file);
    }
    const Status recovered = recover_data_file(
        disk_, file, is_newest, [](std::span<const IndexRecord>) {}, next_sequence,
        RecoveryMode::kSalvage);
    if (recovered || is_missing(recovered.error())) return {};
    return recovered;
  }

  // nullopt: it is missing or does not verify.
  Result<std::optional<FileHeader>> read_header(FileKind kind, const DataFile& file) {
    const std::string& path = kind == FileKind::kData ? file.data_path : file.index_path;
    const auto opened = disk_.open(path, OpenMode::kRead);
    if (!opened && is_missing(opened.error())) return std::optional<FileHeader>();
    if (!opened) return std::unexpected(opened.error());
    Buffer bytes(kFileHeaderLen);
    QSFS_ASSIGN(const std::size_t got, (*opened)->pread(0, bytes));
    bytes.resize(got);
    const auto header = decode_file_header(kind, bytes, path);
    if (!header && header.error().code != Errc::kCorruption) return std::unexpected(header.error());
    if (!header || header->file_id != file.id) return std::optional<FileHeader>();
    return std::optional<FileHeader>(*header);
  }

  // Where the two headers do not agree, the one with which most entries can be read. nullopt: there
  // is none.
  Result<std::optional<FileHeader>> choose_header(DiskFile& data, const DataFile& file) {
    QSFS_ASSIGN(const auto own, read_header(FileKind::kData, file));
    QSFS_ASSIGN(const auto of_index, read_header(FileKind::kIndex, file));
    if (own && of_index && *own == *of_index) return own;
    QSFS_ASSIGN(const auto guess, guess_file_header(data, file.id, mode_));
    QSFS_ASSIGN(const std::uint64_t size, data.size());
    std::optional<FileHeader> best;
    std::uint64_t best_count = 0;
    for (const std::optional<FileHeader>& candidate : {own, of_index, guess}) {
      if (!candidate) continue;
      std::uint64_t count = 0;
      QSFS_TRY(walk_entries(data, {.salt = candidate->salt, .begin = kFileHeaderLen, .size = size},
                            [&](const WalkItem& item) {
                              if (item.header && item.value_good) ++count;
                            }));
      if (best && count <= best_count) continue;
      best = candidate;
      best_count = count;
    }
    return best;
  }

  Status repair_data_header(DiskFile& data, const DataFile& file, const FileHeader& header) {
    QSFS_ASSIGN(const auto own, read_header(FileKind::kData, file));
    if (own && *own == header) return {};
    QSFS_ASSIGN(const auto of_index, read_header(FileKind::kIndex, file));
    done(file.data_path + (of_index && *of_index == header
                               ? ": its header is restored from the index file"
                               : ": its header is made anew"));
    QSFS_TRY(data.pwrite(0, encode_file_header(FileKind::kData, header)));
    return data.datasync();
  }

  // Whether the index file verifies and knows every entry of the part that it describes.
  Result<bool> index_is_complete(DiskFile& data, const DataFile& file, const FileHeader& header) {
    const auto index = disk_.open(file.index_path, OpenMode::kRead);
    if (!index && is_missing(index.error())) return false;
    if (!index) return std::unexpected(index.error());
    QSFS_ASSIGN(const auto own, read_header(FileKind::kIndex, file));
    if (!own || *own != header) return false;
    std::unordered_set<std::uint64_t> known;
    std::uint64_t end = kFileHeaderLen;
    QSFS_ASSIGN(const std::uint64_t index_size, (*index)->size());
    const Status visited = visit_index(**index, header, kFileHeaderLen, index_size,
                                       [&](const FrameHeader& frame, const IndexRecord& record) {
                                         end = std::max(end, frame.data_end);
                                         known.insert(record.offset);
                                         return true;
                                       });
    // One that ends in damage is continued by recovery.
    if (!visited && visited.error().code != Errc::kCorruption)
      return std::unexpected(visited.error());
    QSFS_ASSIGN(const std::uint64_t size, data.size());
    bool is_complete = true;
    QSFS_TRY(walk_entries(data,
                          {.salt = header.salt,
                           .begin = kFileHeaderLen,
                           .size = std::min(end, size),
                           .verify_values = true},
                          [&](const WalkItem& item) {
                            const bool counts = item.header && item.value_good &&
                                                item.header->type != EntryType::kSkip;
                            if (counts && !known.contains(item.begin)) is_complete = false;
                          }));
    return is_complete;
  }

  Status remove_index(const DataFile& file) {
    done(file.index_path + ": made anew from the data");
    const Status removed = disk_.remove(file.index_path);
    if (!removed && !is_missing(removed.error())) return removed;
    return {};
  }

  Status set_aside(const DataFile& file) {
    done(file.data_path + ": nothing in it can be read; renamed to " + file.data_path + ".damaged");
    QSFS_TRY(disk_.rename(file.data_path, file.data_path + ".damaged"));
    const Status renamed = disk_.rename(file.index_path, file.index_path + ".damaged");
    if (!renamed && !is_missing(renamed.error())) return renamed;
    return disk_.sync_directory(parent_path(file.data_path));
  }

  Disk& disk_;
  Random& random_;
  RepairReport& report_;
  NamespaceMode mode_ = NamespaceMode::kUser;  // Of the namespace that is being repaired.
};

}  // namespace

Result<RepairReport> repair_directory(const std::string& directory, Disk& disk, Random& random) {
  const std::string namespaces = directory + "/namespaces";
  const auto found = disk.stat(namespaces);
  if (!found) return with_context(found.error(), directory + " is not a data directory");
  QSFS_ASSIGN(const auto lock, disk.lock_file(directory + "/lock"));
  RepairReport report;
  Repairer repairer(disk, random, report);
  QSFS_TRY(repairer.repair_mark(directory));
  QSFS_ASSIGN(std::vector<std::string> names, disk.list(namespaces));
  std::ranges::sort(names);
  for (const std::string& name : names) {
    QSFS_TRY(repairer.repair_namespace(namespaces + "/" + name, name));
  }
  QSFS_ASSIGN(report.now, check_locked_directory(directory, disk));
  return report;
}

}  // namespace qsfs::zdb
