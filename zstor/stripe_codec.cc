#include "zstor/stripe_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <utility>

#include "base/check.h"
#include "erasure/reed_solomon.h"
#include "zstor/compression.h"

namespace qsfs::zstor {
namespace {

using erasure::kShardsMax;

// What each thread keeps between calls, for each of the two uses; a larger stripe pays for its
// memory each time.
constexpr std::size_t kScratchKeepMax = 4 * kMiB;

// Memory whose content nobody has set: zeroing it would cost as much as the cipher does.
class Scratch {
 public:
  MutableBytes take(std::size_t len) {
    if (len > capacity_) {
      bytes_ = std::make_unique_for_overwrite<std::byte[]>(len);
      capacity_ = len;
    }
    return {bytes_.get(), len};
  }
  void trim() {
    if (capacity_ <= kScratchKeepMax) return;
    bytes_.reset();
    capacity_ = 0;
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t capacity_ = 0;
};

// Borrows one of this thread's scratch memories for a scope.
class ScratchLease {
 public:
  explicit ScratchLease(Scratch& scratch) : scratch_(scratch) {}
  ~ScratchLease() { scratch_.trim(); }
  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;
  MutableBytes take(std::size_t len) { return scratch_.take(len); }

 private:
  Scratch& scratch_;
};

Scratch& compressed_scratch() {
  thread_local Scratch scratch;
  return scratch;
}
Scratch& restored_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

// What the cipher binds a stripe to, besides its key and number: a stripe that was moved, or
// described differently, does not open.
constexpr std::size_t kAssociatedLen = 64;
using Associated = std::array<std::byte, kAssociatedLen>;

Associated associated_data(const std::array<std::byte, 16>& volume_uuid,
                           const ShardHeader& header) {
  Associated out{};
  std::ranges::copy(volume_uuid, out.begin());
  std::ranges::copy(header.object.bytes, out.begin() + 16);
  store_le<std::uint64_t>(out.data() + 32, header.generation);
  store_le<std::uint64_t>(out.data() + 40, header.object_offset);
  store_le<std::uint32_t>(out.data() + 48, header.stripe);
  store_le<std::uint32_t>(out.data() + 52, header.plain_len);
  store_le<std::uint8_t>(out.data() + 56, header.is_last ? 1 : 0);
  store_le<std::uint8_t>(out.data() + 57, static_cast<std::uint8_t>(header.compression));
  store_le<std::uint8_t>(out.data() + 58, static_cast<std::uint8_t>(header.aead));
  return out;
}

// What all intact shards of a stripe say alike.
bool same_stripe(const ShardHeader& a, const ShardHeader& b) {
  return a.is_last == b.is_last && a.compression == b.compression && a.plain_len == b.plain_len &&
         a.sealed_len == b.sealed_len;
}

StripeInfo info_of(const ShardHeader& header) {
  return {.plain_len = header.plain_len,
          .sealed_len = header.sealed_len,
          .compression = header.compression};
}

}  // namespace

crypto::AeadAlgorithm aead_for_writing() {
  return crypto::has_hardware_aes() ? crypto::AeadAlgorithm::kAes256Gcm
                                    : crypto::AeadAlgorithm::kXChaCha20Poly1305;
}

std::uint32_t stripe_size_max(unsigned data_shards) {
  const std::uint64_t payload_max = kShardLenMax - kShardHeaderLen;
  static_assert((kShardLenMax - kShardHeaderLen) % kShardPayloadAlign == 0);
  const std::uint64_t plain_max = payload_max * data_shards - crypto::kAeadTagLen;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(plain_max, kStripeSizeMax));
}

EncodedStripe::EncodedStripe(EncodedStripe&& other) noexcept { *this = std::move(other); }

EncodedStripe& EncodedStripe::operator=(EncodedStripe&& other) noexcept {
  if (this == &other) return *this;
  info_ = std::exchange(other.info_, {});
  shard_count_ = std::exchange(other.shard_count_, 0);
  shard_len_ = std::exchange(other.shard_len_, 0);
  capacity_ = std::exchange(other.capacity_, 0);
  bytes_ = std::move(other.bytes_);
  return *this;
}

Bytes EncodedStripe::shard(unsigned index) const {
  QSFS_CHECK(index < shard_count_);
  return {bytes_.get() + index * shard_len_, shard_len_};
}

MutableBytes EncodedStripe::payload(unsigned index) {
  return MutableBytes(bytes_.get() + index * shard_len_, shard_len_).subspan(kShardHeaderLen);
}

void EncodedStripe::reset(const StripeInfo& info, unsigned shard_count, std::size_t shard_len) {
  const std::size_t len = shard_count * shard_len;
  if (len > capacity_) {
    bytes_ = std::make_unique_for_overwrite<std::byte[]>(len);
    capacity_ = len;
  }
  info_ = info;
  shard_count_ = shard_count;
  shard_len_ = shard_len;
}

// The given shards of one stripe, sorted out.
struct StripeCodec::Candidates {
  struct Shard {
    unsigned index = 0;
    ParsedShard parsed;
    bool mac_checked = false;
  };
  std::vector<Shard> shards;  // Whose headers are as they should be.
  std::vector<unsigned> bad;

  void drop(std::size_t at) {
    bad.push_back(shards[at].index);
    shards.erase(shards.begin() + static_cast<std::ptrdiff_t>(at));
  }
};

// k shards that agree with each other, data shards first.
struct StripeCodec::Selection {
  ShardHeader header;  // Of any of them.
  std::vector<unsigned> indices;
  std::vector<Bytes> payloads;
};

struct StripeCodec::Impl {
  Impl(const StripeCodecOptions& given, ObjectKeys keys,
       std::shared_ptr<const erasure::ReedSolomon> reed_solomon)
      : options(given),
        aead(crypto::Aead::make(given.aead, std::move(keys.aead))),
        mac(std::move(keys.mac)),
        code(std::move(reed_solomon)) {}

  // Empty when `header` is what that shard's header must be, else what is not.
  std::string_view mismatch(std::uint32_t stripe, unsigned index, const ShardHeader& header) const;
  Result<ParsedShard> check_header(std::uint32_t stripe, unsigned index, Bytes shard) const;
  std::string name(std::uint32_t stripe) const;

  Candidates sort_out(std::uint32_t stripe, std::span<const FetchedShard> shards) const;
  void check_macs(Candidates& candidates) const;
  std::optional<Selection> select(const Candidates& candidates) const;
  Status open(const Selection& selection, MutableBytes plain, bool* reconstructed) const;

  const StripeCodecOptions options;
  ShardHeader expected;  // What does not change from shard to shard.
  const crypto::Aead aead;
  const crypto::ShardMac mac;
  const std::shared_ptr<const erasure::ReedSolomon> code;
};

StripeCodec::StripeCodec(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StripeCodec::~StripeCodec() = default;
const StripeCodecOptions& StripeCodec::options() const { return impl_->options; }

Result<std::unique_ptr<StripeCodec>> StripeCodec::make(const crypto::SecretKey& volume_key,
                                                       const StripeCodecOptions& options) {
  QSFS_ASSIGN(auto code, erasure::ReedSolomon::get(options.data_shards, options.total_shards));
  if (options.stripe_size == 0 || options.stripe_size > stripe_size_max(options.data_shards)) {
    return fail(Errc::kInvalidArgument,
                fmt::format("stripe size {}: must be 1 to {} bytes with {} data shards",
                            options.stripe_size, stripe_size_max(options.data_shards),
                            options.data_shards));
  }
  if (!is_known_compression(options.compression)) {
    return fail(Errc::kInvalidArgument, "unknown compression: use none, zstd or snappy");
  }
  if (options.compression_level < kCompressionLevelMin ||
      options.compression_level > kCompressionLevelMax) {
    return fail(Errc::kInvalidArgument,
                fmt::format("compression level {}: must be {} to {}", options.compression_level,
                            kCompressionLevelMin, kCompressionLevelMax));
  }
  if (options.aead != crypto::AeadAlgorithm::kAes256Gcm &&
      options.aead != crypto::AeadAlgorithm::kXChaCha20Poly1305) {
    return fail(Errc::kInvalidArgument, "unknown cipher: use AES-256-GCM or XChaCha20-Poly1305");
  }
  ObjectKeys keys =
      derive_object_keys(volume_key, options.object, options.generation, options.salt);
  auto impl = std::make_unique<Impl>(options, std::move(keys), std::move(code));
  impl->expected = {.aead = options.aead,
                    .data_shards = static_cast<std::uint8_t>(options.data_shards),
                    .total_shards = static_cast<std::uint8_t>(options.total_shards),
                    .generation = options.generation,
                    .volume = volume_tag(volume_key, options.volume_uuid),
                    .object = options.object,
                    .salt = options.salt};
  return std::unique_ptr<StripeCodec>(new StripeCodec(std::move(impl)));
}

std::string StripeCodec::Impl::name(std::uint32_t stripe) const {
  return fmt::format("stripe {} of object {} generation {}", stripe, to_hex(options.object.bytes),
                     options.generation);
}

// --- Writing ------------------------------------------------------------------------------------

Status StripeCodec::encode(std::uint32_t stripe, bool is_last, Bytes plain,
                           EncodedStripe& out) const {
  const StripeCodecOptions& options = impl_->options;
  const unsigned k = options.data_shards;
  const unsigned n = options.total_shards;
  if (plain.size() > options.stripe_size || (!is_last && plain.size() != options.stripe_size)) {
    return fail(Errc::kInvalidArgument,
                fmt::format("{}: {} plain bytes; every stripe has {}, the last one at most that",
                            impl_->name(stripe), plain.size(), options.stripe_size));
  }

  ScratchLease scratch(compressed_scratch());
  const MutableBytes room = scratch.take(compression_room(options.compression, plain.size()));
  const std::optional<std::size_t> compressed =
      compress(options.compression, options.compression_level, plain, room);
  const Bytes body = compressed ? Bytes(room.first(*compressed)) : plain;

  ShardHeader header = impl_->expected;
  header.is_last = is_last;
  header.compression = compressed ? options.compression : Compression::kNone;
  header.stripe = stripe;
  header.plain_len = static_cast<std::uint32_t>(plain.size());
  header.sealed_len = static_cast<std::uint32_t>(body.size() + crypto::kAeadTagLen);
  header.object_offset = std::uint64_t{stripe} * options.stripe_size;
  const std::size_t payload_len = shard_payload_len(header.sealed_len, k);
  out.reset(info_of(header), n, kShardHeaderLen + payload_len);

  // The cipher writes straight into the shards.
  std::array<MutableBytes, kShardsMax> pieces;
  std::array<Bytes, kShardsMax> data;
  std::array<MutableBytes, kShardsMax> parity;
  std::size_t left = header.sealed_len;
  for (unsigned i = 0; i < n; ++i) {
    const MutableBytes payload = out.payload(i);
    if (i >= k) {
      parity[i - k] = payload;
      continue;
    }
    data[i] = payload;
    pieces[i] = payload.first(std::min(left, payload.size()));
    left -= pieces[i].size();
    std::ranges::fill(payload.subspan(pieces[i].size()), std::byte{0});
  }
  impl_->aead.seal_pieces(stripe, associated_data(options.volume_uuid, header), body,
                          std::span(pieces).first(k));
  impl_->code->encode(std::span(data).first(k), std::span(parity).first(n - k));
  for (unsigned i = 0; i < n; ++i) {
    header.index = static_cast<std::uint8_t>(i);
    write_header(header, MutableBytes(out.bytes_.get() + i * out.shard_len_, out.shard_len_));
  }
  return {};
}

// Puts header and MAC in front of the payload that is there already.
void StripeCodec::write_header(const ShardHeader& header, MutableBytes shard) const {
  const MutableBytes maced = shard.first(kShardHeaderMacedLen);
  encode_shard_header(header, maced);
  const crypto::Mac mac = impl_->mac.compute(shard_mac_counter(header.stripe, header.index), maced,
                                             shard.subspan(kShardHeaderLen));
  std::ranges::copy(mac, shard.begin() + kShardHeaderMacedLen);
}

// --- Reading ------------------------------------------------------------------------------------

std::string_view StripeCodec::Impl::mismatch(std::uint32_t stripe, unsigned index,
                                             const ShardHeader& header) const {
  if (header.volume != expected.volume) return "it belongs to another volume or key";
  if (header.object != expected.object) return "it belongs to another object";
  if (header.generation != expected.generation) return "it belongs to another generation";
  if (header.salt != expected.salt) return "it belongs to another put of this generation";
  if (header.stripe != stripe) return "it belongs to another stripe";
  if (header.index != index) return "it has another index";
  if (header.data_shards != expected.data_shards || header.total_shards != expected.total_shards) {
    return "it was made for another k or n";
  }
  if (header.aead != expected.aead) return "it was sealed with another cipher";
  if (header.object_offset != std::uint64_t{stripe} * options.stripe_size ||
      header.plain_len > options.stripe_size ||
      (!header.is_last && header.plain_len != options.stripe_size)) {
    return "it was made for another stripe size";
  }
  return {};
}

Result<ParsedShard> StripeCodec::Impl::check_header(std::uint32_t stripe, unsigned index,
                                                    Bytes shard) const {
  const auto noun = [&] { return fmt::format("shard {} of {}", index, name(stripe)); };
  auto parsed = parse_shard(shard);
  if (!parsed) return with_context(std::move(parsed).error(), noun());
  if (const std::string_view what = mismatch(stripe, index, parsed->header); !what.empty()) {
    return fail(Errc::kCorruption, fmt::format("{}: {}", noun(), what));
  }
  return parsed;
}

StripeCodec::Candidates StripeCodec::Impl::sort_out(std::uint32_t stripe,
                                                    std::span<const FetchedShard> shards) const {
  Candidates out;
  out.shards.reserve(shards.size());
  for (const FetchedShard& shard : shards) {
    const auto parsed = parse_shard(shard.bytes);
    if (parsed && mismatch(stripe, shard.index, parsed->header).empty()) {
      out.shards.push_back({.index = shard.index, .parsed = *parsed});
    } else {
      out.bad.push_back(shard.index);
    }
  }
  return out;
}

void StripeCodec::Impl::check_macs(Candidates& candidates) const {
  for (std::size_t i = 0; i < candidates.shards.size();) {
    auto& shard = candidates.shards[i];
    if (!shard.mac_checked && !shard_mac_fits(shard.parsed, mac)) {
      candidates.drop(i);
      continue;
    }
    shard.mac_checked = true;
    ++i;
  }
}

// The largest set of shards that agree about their stripe, if it has k of different indices. Before
// their MACs are checked, shards may say anything.
std::optional<StripeCodec::Selection> StripeCodec::Impl::select(
    const Candidates& candidates) const {
  const ShardHeader* chosen = nullptr;
  std::bitset<kShardsMax> members;
  for (const auto& candidate : candidates.shards) {
    if (chosen != nullptr && same_stripe(*chosen, candidate.parsed.header)) continue;
    std::bitset<kShardsMax> agreeing;
    for (const auto& other : candidates.shards) {
      if (same_stripe(candidate.parsed.header, other.parsed.header)) agreeing.set(other.index);
    }
    if (agreeing.count() <= members.count()) continue;
    chosen = &candidate.parsed.header;
    members = agreeing;
  }
  if (chosen == nullptr || members.count() < options.data_shards) return std::nullopt;

  Selection out{.header = *chosen};
  std::array<Bytes, kShardsMax> payload_of;
  for (const auto& candidate : candidates.shards) {
    Bytes& payload = payload_of[candidate.index];
    if (payload.empty() && same_stripe(*chosen, candidate.parsed.header)) {
      payload = candidate.parsed.payload;
    }
  }
  for (unsigned i = 0; i < options.total_shards && out.indices.size() < options.data_shards; ++i) {
    if (!members[i]) continue;
    out.indices.push_back(i);
    out.payloads.push_back(payload_of[i]);
  }
  return out;
}

// Restores the data shards that are missing, opens, decompresses.
Status StripeCodec::Impl::open(const Selection& selection, MutableBytes plain,
                               bool* reconstructed) const {
  const ShardHeader& header = selection.header;
  const unsigned k = options.data_shards;
  const std::size_t payload_len = selection.payloads.front().size();
  std::array<Bytes, kShardsMax> data;
  for (std::size_t i = 0; i < k && selection.indices[i] < k; ++i) {
    data[selection.indices[i]] = selection.payloads[i];
  }
  std::vector<unsigned> missing;
  for (unsigned i = 0; i < k; ++i) {
    // Of a small stripe the last data shards may be padding alone.
    if (data[i].empty() && i * payload_len < header.sealed_len) missing.push_back(i);
  }
  ScratchLease restored(restored_scratch());
  if (!missing.empty()) {
    std::vector<MutableBytes> places;
    const MutableBytes room = restored.take(missing.size() * payload_len);
    for (std::size_t i = 0; i < missing.size(); ++i) {
      places.push_back(room.subspan(i * payload_len, payload_len));
      data[missing[i]] = places.back();
    }
    QSFS_TRY(code->reconstruct(selection.indices, selection.payloads, missing, places));
  }
  *reconstructed = !missing.empty();

  std::array<Bytes, kShardsMax> pieces;
  std::size_t left = header.sealed_len;
  for (unsigned i = 0; i < k; ++i) {
    pieces[i] = data[i].first(std::min(left, data[i].size()));
    left -= pieces[i].size();
  }
  const Associated associated = associated_data(options.volume_uuid, header);
  const std::span<const Bytes> sealed = std::span(pieces).first(k);
  if (header.compression == Compression::kNone) {
    return aead.open_pieces(header.stripe, associated, sealed, plain);
  }
  ScratchLease scratch(compressed_scratch());
  const MutableBytes body = scratch.take(header.sealed_len - crypto::kAeadTagLen);
  QSFS_TRY(aead.open_pieces(header.stripe, associated, sealed, body));
  return decompress(header.compression, body, plain);
}

Status StripeCodec::decode(std::uint32_t stripe, std::span<const FetchedShard> shards,
                           MutableBytes plain, DecodeReport* report) const {
  DecodeReport unwanted;
  DecodeReport& result = report != nullptr ? *report : unwanted;
  result = {};
  Candidates candidates = impl_->sort_out(stripe, shards);
  for (std::size_t i = 0; i < candidates.shards.size();) {
    if (candidates.shards[i].parsed.header.plain_len != plain.size()) {
      candidates.drop(i);
    } else {
      ++i;
    }
  }

  std::optional<Selection> selection = impl_->select(candidates);
  Status status = fail(Errc::kCorruption, "too few of them");
  if (selection) status = impl_->open(*selection, plain, &result.reconstructed);
  if (!status) {
    // Now it matters which of them are intact.
    const std::size_t before = candidates.shards.size();
    impl_->check_macs(candidates);
    selection = impl_->select(candidates);
    if (selection && candidates.shards.size() < before) {
      status = impl_->open(*selection, plain, &result.reconstructed);
    }
  }
  if (status) {
    for (std::size_t i = 0; i < candidates.shards.size();) {
      if (same_stripe(candidates.shards[i].parsed.header, selection->header)) {
        ++i;
      } else {
        candidates.drop(i);
      }
    }
    result.is_last = selection->header.is_last;
    result.info = info_of(selection->header);
  }
  result.bad = std::move(candidates.bad);
  if (status) return {};
  std::ranges::fill(plain, std::byte{0});
  return fail(Errc::kCorruption,
              fmt::format("{}: {} of {} shards are intact, {} are needed ({})", impl_->name(stripe),
                          candidates.shards.size(), shards.size(), impl_->options.data_shards,
                          status.error().context));
}

Status StripeCodec::verify_shard(std::uint32_t stripe, unsigned index, Bytes shard) const {
  QSFS_ASSIGN(const ParsedShard parsed, impl_->check_header(stripe, index, shard));
  if (shard_mac_fits(parsed, impl_->mac)) return {};
  return fail(Errc::kCorruption,
              fmt::format("shard {} of {}: its MAC does not fit", index, impl_->name(stripe)));
}

Result<std::vector<RebuiltShard>> StripeCodec::rebuild(std::uint32_t stripe,
                                                       std::span<const unsigned> wanted,
                                                       std::span<const FetchedShard> shards,
                                                       DecodeReport* report) const {
  Candidates candidates = impl_->sort_out(stripe, shards);
  impl_->check_macs(candidates);
  const std::optional<Selection> selection = impl_->select(candidates);
  if (report != nullptr) {
    *report = {.bad = std::move(candidates.bad), .reconstructed = true};
    if (selection) {
      report->is_last = selection->header.is_last;
      report->info = info_of(selection->header);
    }
  }
  if (!selection) {
    return fail(Errc::kCorruption,
                fmt::format("{}: {} of {} shards are intact, {} are needed to rebuild others",
                            impl_->name(stripe), candidates.shards.size(), shards.size(),
                            impl_->options.data_shards));
  }
  const std::size_t payload_len = selection->payloads.front().size();
  std::vector<RebuiltShard> out;
  std::vector<MutableBytes> places;
  out.reserve(wanted.size());
  for (const unsigned index : wanted) {
    out.push_back({.index = index, .bytes = Buffer(kShardHeaderLen + payload_len)});
    places.push_back(MutableBytes(out.back().bytes).subspan(kShardHeaderLen));
  }
  QSFS_TRY(impl_->code->reconstruct(selection->indices, selection->payloads, wanted, places));
  ShardHeader header = selection->header;
  for (RebuiltShard& shard : out) {
    header.index = static_cast<std::uint8_t>(shard.index);
    write_header(header, shard.bytes);
  }
  return out;
}

}  // namespace qsfs::zstor
