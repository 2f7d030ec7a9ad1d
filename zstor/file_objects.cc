#include "zstor/file_objects.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/mutex.h"
#include "zstor/recode.h"
#include "zstor/record_codec.h"

namespace qsfs::zstor {
namespace {

constexpr std::string_view kMagic = "QSFO";
constexpr std::uint8_t kVersion = 1;
constexpr std::string_view kNamePrefix = "obj/";
constexpr std::size_t kPieceLen = kMiB;

// The hash of a file's content: over the hashes of its pieces.
class ContentHash {
 public:
  void add(Bytes bytes) {
    while (!bytes.empty()) {
      const std::size_t len = std::min(bytes.size(), kPieceLen - piece_.size());
      piece_.insert(piece_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(len));
      bytes = bytes.subspan(len);
      if (piece_.size() == kPieceLen) close_piece();
    }
  }
  crypto::Hash256 finish() {
    if (!piece_.empty()) close_piece();
    return crypto::hash256(hashes_);
  }

 private:
  void close_piece() {
    const crypto::Hash256 hash = crypto::hash256(piece_);
    hashes_.insert(hashes_.end(), hash.begin(), hash.end());
    piece_.clear();
  }

  Buffer piece_;
  Buffer hashes_;  // 32 bytes for each MiB.
};

class FileSource final : public Source {
 public:
  FileSource(DiskFile& file, std::uint64_t size, const FileObjects::Progress& progress)
      : file_(file), size_(size), progress_(progress) {}

  Result<std::size_t> read(MutableBytes out) override {
    QSFS_ASSIGN(const std::size_t len, file_.pread(offset_, out));
    hash_.add(out.first(len));
    offset_ += len;
    if (progress_) progress_(offset_, std::max(size_, offset_));
    return len;
  }
  crypto::Hash256 finish() { return hash_.finish(); }

 private:
  DiskFile& file_;
  const std::uint64_t size_;
  const FileObjects::Progress& progress_;
  std::uint64_t offset_ = 0;
  ContentHash hash_;
};

Result<crypto::Hash256> hash_file(DiskFile& file) {
  ContentHash hash;
  Buffer piece(kPieceLen);
  for (std::uint64_t offset = 0;;) {
    QSFS_ASSIGN(const std::size_t len, file.pread(offset, piece));
    hash.add(Bytes(piece).first(len));
    offset += len;
    if (len < piece.size()) return hash.finish();
  }
}

}  // namespace

Result<Buffer> FileObject::encode() const {
  QSFS_ASSIGN(const Buffer manifest_bytes, manifest.encode());
  Buffer bytes;
  ByteWriter out(bytes);
  write_record_start(out, kMagic, kVersion);
  out.sized(as_bytes(path));
  write_wall(out, mtime);
  out.varint(mode);
  out.bytes(content_hash);
  out.sized(manifest_bytes);
  return bytes;
}

Result<FileObject> FileObject::parse(Bytes encoded) {
  ByteReader in(encoded);
  QSFS_TRY(read_record_start(in, kMagic, kVersion, "file object"));
  FileObject file;
  file.path = as_text(in.sized());
  file.mtime = read_wall(in);
  file.mode = static_cast<std::uint32_t>(in.varint());
  read_array(in, file.content_hash);
  const Bytes manifest = in.sized();
  if (!in.at_end()) return fail(Errc::kCorruption, "file object: too short, or too long");
  QSFS_ASSIGN(file.manifest, Manifest::parse(manifest));
  const Result<Buffer> again = file.encode();
  if (!again || !std::ranges::equal(*again, encoded)) {
    return fail(Errc::kCorruption, "file object: not in its canonical form");
  }
  return file;
}

Result<std::string> FileObjects::stored_path(const std::string& path) const {
  const std::string& root = store_.config().root;
  if (root.empty()) return path;
  const std::string with_slash = root.ends_with('/') ? root : root + "/";
  if (!path.starts_with(with_slash)) {
    return fail(Errc::kInvalidArgument, path + " is not under the root of the configuration, " +
                                            root + ": give a path under it");
  }
  return path.substr(with_slash.size());
}

Result<std::string> FileObjects::meta_name(const std::string& path) const {
  QSFS_ASSIGN(const std::string stored, stored_path(path));
  const crypto::SecretKey key =
      store_.config().meta.encryption.key->derive("qsfs file object name", {});
  return std::string(kNamePrefix) + to_hex(crypto::keyed_hash256(key, as_bytes(stored)));
}

Result<std::optional<FileObjects::Found>> FileObjects::look_up(const std::string& path) {
  Found found;
  QSFS_ASSIGN(found.name, meta_name(path));
  QSFS_ASSIGN(const std::optional<MetaValue> value, store_.meta().get(found.name));
  if (!value) return std::optional<Found>();
  found.generation = value->generation;
  QSFS_ASSIGN(found.file, FileObject::parse(value->bytes));
  return std::optional<Found>(std::move(found));
}

Result<FileObjects::Found> FileObjects::need(const std::string& path) {
  QSFS_ASSIGN(std::optional<Found> found, look_up(path));
  if (!found) return fail(Errc::kNotFound, path + " is not stored");
  return std::move(*found);
}

Result<FileObjects::PutResult> FileObjects::put(const std::string& source, const std::string& path,
                                                const Progress& progress) {
  QSFS_ASSIGN(const std::string name, meta_name(path));
  QSFS_ASSIGN(const std::unique_ptr<DiskFile> file, disk_.open(source, OpenMode::kRead));
  QSFS_ASSIGN(const FileInfo info, disk_.stat(source));
  if (info.is_directory) return fail(Errc::kIsDirectory, source);
  // A record that cannot be read is replaced, above its generation.
  QSFS_ASSIGN(const std::optional<MetaValue> old_value, store_.meta().get(name));
  std::optional<FileObject> old;
  if (old_value) {
    if (auto parsed = FileObject::parse(old_value->bytes)) old = std::move(*parsed);
  }
  if (old && old->manifest.size == info.size) {
    QSFS_ASSIGN(const crypto::Hash256 hash, hash_file(*file));
    // Under an old key it is stored anew, or that key could never go.
    if (hash == old->content_hash && is_under_newest_key(old->manifest, store_.config())) {
      return PutResult{.file = std::move(*old), .unchanged = true, .garbage_shards = 0};
    }
  }

  PutResult result;
  FileSource reader(*file, info.size, progress);
  PutOptions options;
  random_.fill(options.id.bytes);
  options.label = path;
  QSFS_ASSIGN(result.file.manifest, store_.put(reader, options));
  QSFS_ASSIGN(result.file.path, stored_path(path));
  result.file.mtime = std::chrono::seconds(info.mtime_s);
  result.file.mode = 0600;
  result.file.content_hash = reader.finish();
  const auto publish = [&]() -> Status {
    QSFS_ASSIGN(const Buffer bytes, result.file.encode());
    return store_.meta().put(name, old_value ? old_value->generation + 1 : 1, bytes);
  };
  if (Status published = publish(); !published) {
    // kUnavailable leaves it open whether the record is there: then its shards must stay.
    if (published.error().code != Errc::kUnavailable) {
      static_cast<void>(store_.remove(result.file.manifest));
    }
    return std::unexpected(std::move(published).error());
  }
  if (old) {
    QSFS_ASSIGN(result.garbage_shards, store_.remove(old->manifest));
  }
  return result;
}

Status FileObjects::fetch_into(const FileObject& file, DiskFile& target, const Progress& progress) {
  const Manifest& manifest = file.manifest;
  std::atomic<std::uint64_t> done = 0;
  Mutex mu;
  std::optional<Error> error;
  const auto failed = [&] {
    MutexLock lock(mu);
    return error.has_value();
  };
  {
    TaskGroup group(cpu_);
    for (std::uint32_t stripe = 0; stripe < manifest.stripes.size() && !failed(); ++stripe) {
      group.wait_below(kGetStripesInFlight);
      if (progress) progress(done.load(), manifest.size);
      group.run([&, stripe] {
        Buffer plain(manifest.stripes[stripe].plain_len);
        Status status = store_.read_stripe(manifest, stripe, plain, {});
        if (status) {
          status = target.pwrite(std::uint64_t{stripe} * manifest.stripe_size, plain);
        }
        done += plain.size();
        if (status) return;
        MutexLock lock(mu);
        if (!error) error = std::move(status).error();
      });
    }
  }
  if (error) return std::unexpected(std::move(*error));
  if (progress) progress(manifest.size, manifest.size);
  // Read back from the file: this is also what the disk has.
  QSFS_ASSIGN(const crypto::Hash256 hash, hash_file(target));
  if (hash != file.content_hash) {
    return fail(Errc::kCorruption, file.path + ": the content has not the hash that was stored");
  }
  return target.datasync();
}

Result<FileObject> FileObjects::get(const std::string& path, const std::string& target,
                                    const Progress& progress) {
  QSFS_ASSIGN(Found found, need(path));
  std::array<std::byte, 8> suffix{};
  random_.fill(suffix);
  const std::string temporary = target + "." + to_hex(suffix) + ".tmp";
  const auto write = [&]() -> Status {
    QSFS_ASSIGN(const std::unique_ptr<DiskFile> file, disk_.open(temporary, OpenMode::kCreateNew));
    return fetch_into(found.file, *file, progress);
  };
  Status written = write();
  if (written) written = disk_.rename(temporary, target);
  if (!written) {
    // What went wrong first is what the user has to know.
    static_cast<void>(disk_.remove(temporary));
    return std::unexpected(std::move(written).error());
  }
  QSFS_TRY(disk_.sync_directory(parent_path(target)));
  return std::move(found.file);
}

Result<FileObject> FileObjects::find(const std::string& path) {
  QSFS_ASSIGN(Found found, need(path));
  return std::move(found.file);
}

Result<VerifyReport> FileObjects::check(const std::string& path, VerifyMode mode) {
  QSFS_ASSIGN(const Found found, need(path));
  return store_.verify(found.file.manifest, mode);
}

Result<VerifyReport> FileObjects::rebuild(const std::string& path, VerifyMode mode) {
  QSFS_ASSIGN(Found found, need(path));
  const Manifest before = found.file.manifest;
  QSFS_ASSIGN(VerifyReport report, store_.repair(found.file.manifest, mode));
  QSFS_ASSIGN(const Buffer bytes, found.file.encode());
  QSFS_ASSIGN(const crypto::Hash256 hash_before, before.hash());
  QSFS_ASSIGN(const crypto::Hash256 hash_after, found.file.manifest.hash());
  if (hash_before != hash_after) {
    QSFS_TRY(store_.meta().put(found.name, found.generation + 1, bytes));
  }
  return report;
}

Result<std::uint64_t> FileObjects::remove(const std::string& path) {
  QSFS_ASSIGN(const Found found, need(path));
  // The record first: a crash in between leaves garbage, not a record of nothing.
  QSFS_TRY(store_.meta().remove(found.name));
  return store_.remove(found.file.manifest);
}

Result<FileObjects::Listing> FileObjects::list() {
  QSFS_ASSIGN(const std::vector<std::string> names, store_.meta().list(kNamePrefix));
  Listing listing;
  for (const std::string& name : names) {
    const auto value = store_.meta().get(name);
    if (value && !*value) continue;  // Removed in between.
    auto file = value ? FileObject::parse((*value)->bytes)
                      : Result<FileObject>(std::unexpected(value.error()));
    if (file) {
      listing.files.push_back(std::move(*file));
    } else {
      ++listing.unreadable;
    }
  }
  std::ranges::sort(listing.files, {}, &FileObject::path);
  return listing;
}

}  // namespace qsfs::zstor
