#include "fs/archive/checkpoint.h"

#include <algorithm>

#include "base/crc32c.h"
#include "fs/log/mutation.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kMagic = 0x4b435351;  // "QSCK"
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderLen = 16;
constexpr std::size_t kTrailerLen = 1 + 8 + 4;
constexpr std::size_t kValueLenMax = 16 * kMiB;
constexpr std::size_t kVarintLenMax = 10;
// How much is rendered, or applied, at a time.
constexpr std::size_t kChunk = 256 * kKiB;

std::unexpected<Error> bad_checkpoint(std::string_view why) {
  return fail(Errc::kCorruption, "checkpoint: " + std::string(why));
}

}  // namespace

CheckpointSource::CheckpointSource(std::unique_ptr<MetaSnapshot> snapshot)
    : snapshot_(std::move(snapshot)) {
  const auto [first, last] = MetaStore::all_keys();
  it_ = snapshot_->iterate(first, last);
  Buffer header;
  ByteWriter writer(header);
  writer.le(kMagic);
  writer.le(kVersion);
  writer.le(snapshot_->lsn().value);
  emit(header);
}

void CheckpointSource::emit(Bytes bytes) {
  crc_ = crc32c(bytes, crc_);
  pending_.insert(pending_.end(), bytes.begin(), bytes.end());
}

Status CheckpointSource::refill() {
  pending_.clear();
  pending_at_ = 0;
  Buffer entry;
  while (it_->valid() && pending_.size() < kChunk) {
    entry.clear();
    ByteWriter writer(entry);
    writer.sized(it_->key());
    writer.sized(it_->value());
    emit(entry);
    ++entries_;
    it_->next();
  }
  if (it_->valid()) return {};
  QSFS_TRY(it_->status());
  // An empty key ends the entries.
  entry.assign(1, std::byte{0});
  ByteWriter writer(entry);
  writer.le(entries_);
  emit(entry);
  ByteWriter(pending_).le(crc_);
  ended_ = true;
  return {};
}

Result<std::size_t> CheckpointSource::read(MutableBytes out) {
  std::size_t done = 0;
  while (done < out.size()) {
    if (pending_at_ == pending_.size()) {
      if (ended_) break;
      QSFS_TRY(refill());
    }
    const std::size_t len = std::min(out.size() - done, pending_.size() - pending_at_);
    std::copy_n(pending_.begin() + static_cast<std::ptrdiff_t>(pending_at_), len,
                out.begin() + static_cast<std::ptrdiff_t>(done));
    pending_at_ += len;
    done += len;
  }
  return done;
}

Result<bool> CheckpointReader::consume(Bytes& rest) {
  ByteReader in(rest);
  const std::uint64_t key_len = in.varint();
  if (in.failed())
    return rest.size() >= kVarintLenMax ? Result<bool>(bad_checkpoint("malformed entry")) : false;
  if (key_len == 0) {
    if (rest.size() < kTrailerLen) return false;
    if (rest.size() > kTrailerLen) return bad_checkpoint("bytes behind its end");
    const auto entries = in.le<std::uint64_t>();
    crc_ = crc32c(rest.first(kTrailerLen - 4), crc_);
    if (entries != entries_ || in.le<std::uint32_t>() != crc_)
      return bad_checkpoint("checksum mismatch");
    ended_ = true;
    rest = {};
    return true;
  }
  if (key_len > kMetaKeyLenMax) return bad_checkpoint("a key is too long");
  const Bytes key = in.bytes(static_cast<std::size_t>(key_len));
  if (in.failed()) return false;
  const std::size_t left = in.remaining();
  const std::uint64_t value_len = in.varint();
  // No number at all, however much follows: waiting for more would keep the rest of the object.
  if (in.failed()) {
    return left >= kVarintLenMax ? Result<bool>(bad_checkpoint("malformed entry")) : false;
  }
  if (value_len > kValueLenMax) return bad_checkpoint("a value is too long");
  const Bytes value = in.bytes(static_cast<std::size_t>(value_len));
  if (in.failed()) return false;
  const std::size_t used = rest.size() - in.remaining();
  crc_ = crc32c(rest.first(used), crc_);
  ++entries_;
  QSFS_TRY(visit_(key, value));
  rest = rest.subspan(used);
  return true;
}

Status CheckpointReader::feed(Bytes bytes) {
  if (ended_ && !bytes.empty()) return bad_checkpoint("bytes behind its end");
  pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  Bytes rest = pending_;
  if (!has_header_) {
    if (rest.size() < kHeaderLen) return {};
    ByteReader in(rest);
    if (in.le<std::uint32_t>() != kMagic) return bad_checkpoint("no magic number");
    if (in.le<std::uint32_t>() != kVersion) {
      return fail(Errc::kUnsupported, "checkpoint of a newer version; use a newer qsfs-fs");
    }
    lsn_ = Lsn{in.le<std::uint64_t>()};
    crc_ = crc32c(rest.first(kHeaderLen));
    rest = rest.subspan(kHeaderLen);
    has_header_ = true;
  }
  while (!rest.empty() && !ended_) {
    QSFS_ASSIGN(const bool consumed, consume(rest));
    if (!consumed) break;
  }
  pending_.erase(pending_.begin(), pending_.end() - static_cast<std::ptrdiff_t>(rest.size()));
  return {};
}

Result<Lsn> CheckpointReader::finish() const {
  if (!ended_) return bad_checkpoint("cut short");
  return lsn_;
}

Result<Lsn> load_checkpoint(zstor::ObjectStore& store, const zstor::Manifest& object,
                            MetaStore& into, const std::function<void(std::uint64_t)>& progress) {
  MutationBatch batch;
  CheckpointReader reader([&](Bytes key, Bytes value) -> Status {
    batch.put(key, value);
    if (batch.encoded().size() < kChunk) return {};
    // Until the last entry is in, the store claims nothing.
    QSFS_TRY(into.apply(batch.encoded(), Lsn{}));
    batch.clear();
    return {};
  });
  Buffer stripe;
  std::uint64_t done = 0;
  for (std::uint32_t i = 0; i < object.stripes.size(); ++i) {
    stripe.resize(object.stripes[i].plain_len);
    QSFS_TRY(store.read_stripe(object, i, stripe, {}));
    QSFS_TRY(reader.feed(stripe));
    done += stripe.size();
    progress(done);
  }
  QSFS_ASSIGN(const Lsn lsn, reader.finish());
  QSFS_TRY(into.apply(batch.encoded(), lsn));
  QSFS_TRY(into.flush());
  return lsn;
}

}  // namespace qsfs::fs
