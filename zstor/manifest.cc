#include "zstor/manifest.h"

#include <algorithm>
#include <limits>

#include "zstor/manifest_limits.h"
#include "zstor/placement.h"
#include "zstor/record_codec.h"
#include "zstor/shard.h"

namespace qsfs::zstor {
namespace {

constexpr std::string_view kMagic = "QSMF";
constexpr std::uint8_t kVersion = 1;
// With the id of its key.
constexpr std::uint8_t kVersion2 = 2;
constexpr std::uint8_t kFlagSequential = 1;
// The compression stands in the lowest bits of a stripe's number.
constexpr unsigned kCompressionBits = 2;

// Signed differences of ids, small whatever their direction; both wrap, so that every u64 goes.
std::uint64_t zigzag(std::uint64_t difference) {
  return difference << 1 ^ (difference >> 63 != 0 ? ~std::uint64_t{0} : 0);
}
std::uint64_t unzigzag(std::uint64_t value) {
  return value >> 1 ^ ((value & 1) != 0 ? ~std::uint64_t{0} : 0);
}

std::unexpected<Error> wrong(Errc code, const std::string& what) {
  return fail(code, "manifest: " + what);
}

Status check_shape(const Manifest& m, Errc code) {
  if (m.data_shards == 0 || m.data_shards > m.total_shards || m.total_shards > kShardsMax) {
    return wrong(code, "needs 1 <= k <= n <= 255, has k " + std::to_string(m.data_shards) + ", n " +
                           std::to_string(m.total_shards));
  }
  if (m.stripe_size == 0 || m.stripe_size > kStripeSizeMax) {
    return wrong(code, "stripe size " + std::to_string(m.stripe_size) + " is not in 1.." +
                           std::to_string(kStripeSizeMax));
  }
  if (m.aead != crypto::AeadAlgorithm::kAes256Gcm &&
      m.aead != crypto::AeadAlgorithm::kXChaCha20Poly1305) {
    return wrong(code, "unknown cipher");
  }
  if (m.label.size() > kManifestLabelLenMax) return wrong(code, "label too long");
  if (m.backends.size() > kManifestBackendsMax) return wrong(code, "too many backends");
  for (const ManifestBackend& backend : m.backends) {
    if (backend.address.size() > kManifestTextLenMax ||
        backend.name_space.size() > zdb::kNamespaceLenMax) {
      return wrong(code, "address or namespace of a backend too long");
    }
  }
  return {};
}

// How many stripes `size` bytes are, if their shards stay under the limit.
Result<std::size_t> count_stripes(const Manifest& m, Errc code) {
  const std::uint64_t count = m.size / m.stripe_size + (m.size % m.stripe_size != 0 ? 1 : 0);
  if (count > kManifestShardsMax / m.total_shards) {
    return wrong(code, std::to_string(count) + " stripes of " + std::to_string(m.total_shards) +
                           " shards are over the limit of " + std::to_string(kManifestShardsMax) +
                           " shards; a larger stripe size makes fewer");
  }
  return static_cast<std::size_t>(count);
}

std::uint32_t plain_len_of(const Manifest& m, std::size_t stripe) {
  const std::uint64_t rest = m.size - std::uint64_t{stripe} * m.stripe_size;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(rest, m.stripe_size));
}

Status check_stripes(const Manifest& m, Errc code) {
  for (std::size_t i = 0; i < m.stripes.size(); ++i) {
    const StripeInfo& stripe = m.stripes[i];
    if (stripe.plain_len != plain_len_of(m, i)) {
      return wrong(code, "stripe " + std::to_string(i) + " has a wrong plain length");
    }
    if (stripe.sealed_len < crypto::kAeadTagLen ||
        stripe.sealed_len > stripe.plain_len + crypto::kAeadTagLen) {
      return wrong(code, "stripe " + std::to_string(i) + " has a wrong sealed length");
    }
    if (stripe.compression > Compression::kSnappy) {
      return wrong(code, "stripe " + std::to_string(i) + " has an unknown compression");
    }
  }
  return {};
}

// Each on another backend, known, and a sequential key only where the backend gives them.
Status check_locations(const Manifest& m, Errc code) {
  constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> last_stripe(m.backends.size(), kNever);
  for (std::size_t at = 0; at < m.shards.size(); ++at) {
    const ShardLocation& shard = m.shards[at];
    const std::size_t stripe = at / m.total_shards;
    if (shard.backend == ShardLocation::kAbsent) {
      if (shard.sequential_key != 0) return wrong(code, "an absent shard has a key");
      continue;
    }
    if (shard.backend >= m.backends.size()) return wrong(code, "unknown backend of a shard");
    if (last_stripe[shard.backend] == stripe) {
      return wrong(code, "two shards of stripe " + std::to_string(stripe) + " on one backend");
    }
    last_stripe[shard.backend] = stripe;
    if (!m.backends[shard.backend].sequential && shard.sequential_key != 0) {
      return wrong(code, "a sequential key on a backend in user mode");
    }
  }
  return {};
}

Status check(const Manifest& m, Errc code) {
  QSFS_TRY(check_shape(m, code));
  QSFS_ASSIGN(const std::size_t stripes, count_stripes(m, code));
  if (m.stripes.size() != stripes || m.shards.size() != stripes * m.total_shards) {
    return wrong(code, "the numbers of stripes and shards do not fit the size");
  }
  QSFS_TRY(check_stripes(m, code));
  return check_locations(m, code);
}

// Column by column: shard 3 of every stripe mostly lies on one backend, so a column is one run.
void encode_locations(const Manifest& m, ByteWriter& out) {
  const std::size_t stripes = m.stripes.size();
  for (unsigned index = 0; index < m.total_shards; ++index) {
    for (std::size_t at = 0; at < stripes;) {
      const std::uint16_t backend = m.shard(at, index).backend;
      std::size_t end = at + 1;
      while (end < stripes && m.shard(end, index).backend == backend) ++end;
      out.varint(end - at);
      out.varint(backend == ShardLocation::kAbsent ? 0 : std::uint64_t{backend} + 1);
      at = end;
    }
  }
  std::vector<std::uint64_t> previous(m.backends.size(), 0);
  for (const ShardLocation& shard : m.shards) {
    if (shard.backend == ShardLocation::kAbsent || !m.backends[shard.backend].sequential) continue;
    out.varint(zigzag(shard.sequential_key - previous[shard.backend]));
    previous[shard.backend] = shard.sequential_key;
  }
}

Status parse_locations(Manifest& m, ByteReader& in) {
  const std::size_t stripes = m.stripes.size();
  m.shards.resize(stripes * m.total_shards);
  for (unsigned index = 0; index < m.total_shards; ++index) {
    for (std::size_t at = 0; at < stripes;) {
      const std::uint64_t run = in.varint();
      const std::uint64_t backend = in.varint();
      if (in.failed() || run == 0 || run > stripes - at || backend > m.backends.size()) {
        return wrong(Errc::kCorruption, "bad run of shard locations");
      }
      const auto end = at + static_cast<std::size_t>(run);
      const std::uint16_t value =
          backend == 0 ? ShardLocation::kAbsent : static_cast<std::uint16_t>(backend - 1);
      for (; at < end; ++at) m.shards[at * m.total_shards + index].backend = value;
    }
  }
  std::vector<std::uint64_t> previous(m.backends.size(), 0);
  for (ShardLocation& shard : m.shards) {
    if (shard.backend == ShardLocation::kAbsent || !m.backends[shard.backend].sequential) continue;
    previous[shard.backend] += unzigzag(in.varint());
    shard.sequential_key = previous[shard.backend];
  }
  return {};
}

Status parse_backends(Manifest& m, ByteReader& in) {
  const std::uint64_t count = in.varint();
  // An entry has at least 19 bytes: what is left of the input bounds the allocation.
  if (count > kManifestBackendsMax || count > in.remaining() / 19) {
    return wrong(Errc::kCorruption, "more backends than there is room for");
  }
  m.backends.resize(static_cast<std::size_t>(count));
  for (ManifestBackend& backend : m.backends) {
    const Bytes id = in.bytes(backend.id.size());
    std::copy(id.begin(), id.end(), backend.id.begin());
    backend.sequential = (in.le<std::uint8_t>() & kFlagSequential) != 0;
    backend.address = as_text(in.sized());
    backend.name_space = as_text(in.sized());
  }
  return in.failed() ? wrong(Errc::kCorruption, "ends within its backends") : Status{};
}

Status parse_stripes(Manifest& m, ByteReader& in) {
  QSFS_ASSIGN(const std::size_t count, count_stripes(m, Errc::kCorruption));
  if (count > in.remaining()) return wrong(Errc::kCorruption, "fewer stripes than its size needs");
  m.stripes.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t packed = in.varint();
    const std::uint64_t sealed_len = packed >> kCompressionBits;
    if (sealed_len > kStripeSizeMax + crypto::kAeadTagLen) {
      return wrong(Errc::kCorruption, "a sealed length over the limit");
    }
    m.stripes[i].sealed_len = static_cast<std::uint32_t>(sealed_len);
    m.stripes[i].compression = static_cast<Compression>(packed & ((1U << kCompressionBits) - 1));
    m.stripes[i].plain_len = plain_len_of(m, i);
  }
  return in.failed() ? wrong(Errc::kCorruption, "ends within its stripes") : Status{};
}

}  // namespace

unsigned Manifest::missing_shards_max() const {
  unsigned worst = 0;
  for (std::size_t stripe = 0; stripe < stripes.size(); ++stripe) {
    unsigned missing = 0;
    for (unsigned index = 0; index < total_shards; ++index) {
      if (shard(stripe, index).backend == ShardLocation::kAbsent) ++missing;
    }
    worst = std::max(worst, missing);
  }
  return worst;
}

Result<Buffer> Manifest::encode() const {
  QSFS_TRY(check(*this, Errc::kInvalidArgument));
  Buffer bytes;
  ByteWriter out(bytes);
  out.bytes(as_bytes(kMagic));
  out.le(key ? kVersion2 : kVersion);
  out.le(static_cast<std::uint8_t>(aead));
  out.le(static_cast<std::uint8_t>(data_shards));
  out.le(static_cast<std::uint8_t>(total_shards));
  out.bytes(id.bytes);
  out.bytes(salt);
  if (key) out.bytes(*key);
  out.varint(generation);
  out.varint(stripe_size);
  out.varint(size);
  out.sized(as_bytes(label));
  out.varint(backends.size());
  for (const ManifestBackend& backend : backends) {
    out.bytes(backend.id);
    out.le(backend.sequential ? kFlagSequential : std::uint8_t{0});
    out.sized(as_bytes(backend.address));
    out.sized(as_bytes(backend.name_space));
  }
  for (const StripeInfo& stripe : stripes) {
    out.varint(std::uint64_t{stripe.sealed_len} << kCompressionBits |
               static_cast<std::uint64_t>(stripe.compression));
  }
  encode_locations(*this, out);
  if (bytes.size() > kManifestBytesMax) {
    return fail(Errc::kTooBig, "manifest of " + std::to_string(bytes.size()) + " bytes; at most " +
                                   std::to_string(kManifestBytesMax) +
                                   " fit a backend: store the object in smaller pieces");
  }
  return bytes;
}

Result<Manifest> Manifest::parse(Bytes encoded) {
  if (encoded.size() > kManifestBytesMax) return wrong(Errc::kCorruption, "over its size limit");
  ByteReader in(encoded);
  if (as_text(in.bytes(kMagic.size())) != kMagic) return wrong(Errc::kCorruption, "no magic");
  const auto version = in.le<std::uint8_t>();
  if (version != kVersion && version != kVersion2) {
    return fail(
        version > kVersion2 ? Errc::kUnsupported : Errc::kCorruption,
        "manifest: version " + std::to_string(version) + "; this program reads versions 1 and 2");
  }
  Manifest m;
  m.aead = static_cast<crypto::AeadAlgorithm>(in.le<std::uint8_t>());
  m.data_shards = in.le<std::uint8_t>();
  m.total_shards = in.le<std::uint8_t>();
  read_array(in, m.id.bytes);
  read_array(in, m.salt);
  if (version == kVersion2) read_array(in, m.key.emplace());
  m.generation = in.varint();
  const std::uint64_t stripe_size = in.varint();
  if (stripe_size > kStripeSizeMax) return wrong(Errc::kCorruption, "stripe size over its limit");
  m.stripe_size = static_cast<std::uint32_t>(stripe_size);
  m.size = in.varint();
  m.label = as_text(in.sized());
  if (in.failed()) return wrong(Errc::kCorruption, "too short");
  QSFS_TRY(check_shape(m, Errc::kCorruption));
  QSFS_TRY(parse_backends(m, in));
  QSFS_TRY(parse_stripes(m, in));
  QSFS_TRY(parse_locations(m, in));
  if (!in.at_end()) return wrong(Errc::kCorruption, "too short, or bytes behind its end");
  QSFS_TRY(check(m, Errc::kCorruption));
  // One manifest has one encoding, so that hashes of the chain mean the content: long varints, cut
  // runs and unknown flags end here.
  const Result<Buffer> again = m.encode();
  if (!again || !std::ranges::equal(*again, encoded)) {
    return wrong(Errc::kCorruption, "not in its canonical form");
  }
  return m;
}

Result<crypto::Hash256> Manifest::hash() const {
  QSFS_ASSIGN(const Buffer encoded, encode());
  return crypto::hash256(encoded);
}

Result<crypto::Hash256> Manifest::content_hash() const {
  Manifest content = *this;
  content.backends.clear();
  content.key.reset();
  std::ranges::fill(content.shards, ShardLocation{});
  return content.hash();
}

}  // namespace qsfs::zstor
