// Data directories that a broken disk, or somebody with access to it, left. A good directory with
// two namespaces, closed, compacted and open files is changed as the input says; then it is
// checked, perhaps repaired, opened and used. The first byte:
//   bit 0  checksums are made right after the changes, so that what they protect is reached
//   bit 1  it is repaired before it is opened
//   bit 2  the index files are removed first
// Then changes of 6 bytes: file, kind, offset (u16), two bytes of content.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "tests/sim/sim_disk.h"
#include "zdb/directory_check.h"
#include "zdb/directory_repair.h"
#include "zdb/engine.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {
namespace {

constexpr std::size_t kChangeLen = 6;
constexpr std::size_t kChangesMax = 32;
constexpr std::size_t kFileLenMax = 256 * kKiB;
constexpr int kPagesMax = 2000;

class StillClock final : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  WallTime wall() const override { return std::chrono::seconds(1700000000) + now_; }
  void sleep_for(Duration duration) override { now_ += duration; }

 private:
  MonotonicTime now_{0};
};

EngineOptions options() {
  return {.directory = "/zdb",
          .sync = SyncPolicy::kNever,
          .data_file_bytes_max = 4 * kKiB,
          .background_thread = false,
          .compaction_bytes_per_s = 0,
          .scrub_bytes_per_s = 0};
}

void fill(EngineNamespace& ns, bool is_user) {
  for (int i = 0; i < 24; ++i) {
    const std::string value(static_cast<std::size_t>(200 + i * 10), static_cast<char>('a' + i));
    const std::string key = is_user ? "key" + std::to_string(i) : "";
    QSFS_CHECK(ns.set(as_bytes(key), as_bytes(value), 1000).has_value());
  }
  for (std::uint64_t i = 0; i < 12; ++i) {
    const std::string key = "key" + std::to_string(i);
    const auto id = encode_id(i);
    if (i % 4 == 0) continue;
    QSFS_CHECK(ns.remove(is_user ? as_bytes(key) : Bytes(id)).has_value());
  }
}

struct World {
  explicit World() {
    auto engine = Engine::open(options(), *disk, clock, random);
    QSFS_CHECK(engine.has_value());
    const auto user = (*engine)->find_namespace("default");
    const auto ids = (*engine)->create_namespace("ids", {.mode = NamespaceMode::kSequential});
    fill(*user, true);
    fill(**ids, false);
    while ((*engine)->tidy()) {
    }
    QSFS_CHECK(user->set(as_bytes(std::string("last")), as_bytes(std::string("value")), 1));
  }

  std::unique_ptr<sim::SimDisk> disk = std::make_unique<sim::SimDisk>(1);
  StillClock clock;
  SeededRandom random{7};
};

std::vector<std::string> all_files(Disk& disk, const std::string& directory) {
  std::vector<std::string> files;
  const std::vector<std::string> names = disk.list(directory).value();
  for (const std::string& name : names) {
    const std::string path = directory + "/" + name;
    if (disk.stat(path)->is_directory) {
      for (std::string& inner : all_files(disk, path)) files.push_back(std::move(inner));
    } else if (name != "lock") {
      files.push_back(path);
    }
  }
  return files;
}

void make_crc_right(Buffer& bytes, std::size_t crc_at, std::size_t begin, std::size_t end) {
  if (bytes.size() < end || bytes.size() < crc_at + 4) return;
  store_le(bytes.data() + crc_at, crc32c(Bytes(bytes).subspan(begin, end - begin)));
}

std::uint32_t anchor(const Buffer& file, std::size_t offset) {
  std::array<std::byte, 16> seed;
  store_le(seed.data(), load_le<std::uint64_t>(file.data() + 16));
  store_le(seed.data() + 8, std::uint64_t{offset});
  return crc32c(seed);
}

void make_entries_right(Buffer& file) {
  for (std::size_t at = kFileHeaderLen; at + kEntryHeaderLen <= file.size();) {
    const std::size_t key_len = std::to_integer<std::size_t>(file[at + 40]);
    const std::size_t value_len = load_le<std::uint32_t>(file.data() + at + 12) % 4096;
    const std::size_t end = at + kEntryHeaderLen + key_len;
    if (end > file.size()) return;
    const Bytes covered = Bytes(file).subspan(at + 8, end - at - 8);
    store_le(file.data() + at + 4, crc32c(covered, anchor(file, at)));
    at += entry_len(key_len, value_len);
  }
}

void make_frames_right(Buffer& file) {
  for (std::size_t at = kFileHeaderLen; at + kFrameHeaderLen <= file.size();) {
    const std::size_t rest = file.size() - at - kFrameHeaderLen;
    const std::size_t len =
        std::min<std::size_t>(load_le<std::uint32_t>(file.data() + at + 8), rest);
    store_le(file.data() + at + 8, static_cast<std::uint32_t>(len));
    const Bytes payload = Bytes(file).subspan(at + kFrameHeaderLen, len);
    store_le(file.data() + at + 12, crc32c(payload, anchor(file, at)));
    const Bytes covered = Bytes(file).subspan(at + 8, kFrameHeaderLen - 8);
    store_le(file.data() + at + 4, crc32c(covered, anchor(file, at)));
    at += kFrameHeaderLen + len;
  }
}

void make_right(const std::string& path, Buffer& bytes) {
  if (path.ends_with("format")) make_crc_right(bytes, 12, 0, 12);
  if (path.ends_with("settings") && bytes.size() > 4) {
    make_crc_right(bytes, bytes.size() - 4, 0, bytes.size() - 4);
  }
  const bool is_data = path.ends_with(".data");
  if (!is_data && !path.ends_with(".index")) return;
  make_crc_right(bytes, kFileHeaderLen - 4, 0, kFileHeaderLen - 4);
  if (bytes.size() < kFileHeaderLen) return;
  if (is_data) make_entries_right(bytes);
  if (!is_data) make_frames_right(bytes);
}

void change(Disk& disk, const std::vector<std::string>& files, Bytes edit, bool rightly) {
  const std::string& path = files[std::to_integer<std::size_t>(edit[0]) % files.size()];
  auto content = read_whole_file(disk, path, kFileLenMax);
  if (!content) return;  // Removed by an earlier change.
  Buffer bytes = std::move(*content);
  const std::size_t offset = load_le<std::uint16_t>(edit.data() + 2);
  switch (std::to_integer<int>(edit[1]) % 8) {
    case 0:
      bytes.resize(std::min(offset, bytes.size()));
      break;
    case 1:
      bytes.resize(bytes.size() + offset % 4096, edit[4]);
      break;
    case 2:
      QSFS_CHECK(disk.remove(path).has_value());
      return;
    case 3: {
      const std::string& other = files[std::to_integer<std::size_t>(edit[4]) % files.size()];
      if (const auto copied = read_whole_file(disk, other, kFileLenMax)) bytes = *copied;
      break;
    }
    default:
      for (std::size_t i = 0; i < 2; ++i) {
        if (!bytes.empty()) bytes[(offset + i) % bytes.size()] = edit[4 + i];
      }
  }
  if (rightly) make_right(path, bytes);
  QSFS_CHECK(write_file_atomically(disk, path, bytes).has_value());
}

void use(EngineNamespace& ns) {
  for (const bool backwards : {false, true}) {
    Buffer cursor;
    int pages = 0;
    do {
      const auto page = backwards ? ns.scan_back(cursor, 5) : ns.scan(cursor, 5);
      if (!page) break;
      for (const ScanEntry& entry : page->entries) {
        const auto value = ns.get(entry.key);
        QSFS_CHECK(!value || !*value || (*value)->size() == entry.payload_bytes);
        const auto version = ns.version(entry.key, {});
        if (version && *version && (*version)->previous) {
          const auto older = ns.version(entry.key, *(*version)->previous);
          QSFS_CHECK(!older || !*older || (*older)->value.size() <= kValueLenMax);
        }
      }
      cursor = page->cursor;
      QSFS_CHECK(++pages < kPagesMax);
    } while (!cursor.empty());
  }
  const bool is_user = ns.settings().mode == NamespaceMode::kUser;
  const std::string key = is_user ? "new" : "";
  const std::string value = "something new";
  const auto stored = ns.set(as_bytes(key), as_bytes(value), 1);
  if (!stored) return;
  const auto found = ns.get(stored->key);
  QSFS_CHECK(found && *found && as_text(**found) == value);
}

void open_and_use(World& world) {
  for (int round = 0; round < 2; ++round) {
    auto engine = Engine::open(options(), *world.disk, world.clock, world.random);
    if (!engine) return;
    for (const std::string& name : (*engine)->namespace_names()) {
      use(*(*engine)->find_namespace(name));
    }
    for (int i = 0; i < 50 && (*engine)->tidy(); ++i) {
    }
  }
}

}  // namespace
}  // namespace qsfs::zdb

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qsfs;
  using namespace qsfs::zdb;
  static const bool quiet = log::start({.level = log::Level::kOff, .file = ""}).has_value();
  QSFS_CHECK(quiet);
  if (size == 0) return 0;
  World world;
  const std::vector<std::string> files = all_files(*world.disk, "/zdb");
  Bytes rest = std::as_bytes(std::span(data, size)).subspan(1);
  if ((data[0] & 4) != 0) {
    for (const std::string& path : files) {
      if (path.ends_with(".index")) QSFS_CHECK(world.disk->remove(path).has_value());
    }
  }
  for (std::size_t i = 0; i < kChangesMax && rest.size() >= kChangeLen; ++i) {
    change(*world.disk, files, rest.first(kChangeLen), (data[0] & 1) != 0);
    rest = rest.subspan(kChangeLen);
  }
  // Says what it is like, whatever it is like.
  const auto checked = check_directory("/zdb", *world.disk);
  if ((data[0] & 2) != 0) {
    const auto repaired = repair_directory("/zdb", *world.disk, world.random);
    // Index files and headers that lie with good checksums are believed.
    const bool is_honest = (data[0] & 1) == 0;
    if (is_honest && repaired && checked) {
      QSFS_CHECK(repaired->now.entries >= checked->entries);
    }
  }
  open_and_use(world);
  return 0;
}
