#include "erasure/reed_solomon.h"

#include <isa-l/erasure_code.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <list>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"

namespace qsfs::erasure {
namespace {

// ISA-L expands each coefficient to a table of products.
constexpr std::size_t kTableBytesPerCoefficient = 32;
// ISA-L counts in int; longer shards go in several calls.
constexpr std::size_t kSliceLenMax = std::size_t{1} << 30;
// Few patterns of a wide code fill as much memory as kDecodeTablesMax of a usual one.
constexpr std::size_t kDecodeTableBytesMax = 8 * kMiB;

using Coefficients = std::vector<unsigned char>;

// The products of `rows` rows of k coefficients, as ec_encode_data() wants them.
struct Tables {
  Tables(const Coefficients& matrix, unsigned k, unsigned row_count)
      : rows(row_count), bytes(matrix.size() * kTableBytesPerCoefficient) {
    if (rows == 0) return;
    // Reads its matrix only; the parameter merely lacks a const.
    ec_init_tables(static_cast<int>(k), static_cast<int>(rows),
                   const_cast<unsigned char*>(matrix.data()), bytes.data());
  }
  unsigned rows;
  std::vector<unsigned char> bytes;
};

// out[r] = sum of table row r over the inputs.
void multiply(const Tables& tables, std::span<const Bytes> in, std::span<const MutableBytes> out) {
  if (tables.rows == 0) return;
  std::array<unsigned char*, kShardsMax> from;
  std::array<unsigned char*, kShardsMax> to;
  const std::size_t len = in.front().size();
  for (std::size_t at = 0; at < len; at += kSliceLenMax) {
    const std::size_t slice = std::min(kSliceLenMax, len - at);
    for (std::size_t i = 0; i < in.size(); ++i) {
      from[i] = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(in[i].data() + at));
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      to[i] = reinterpret_cast<unsigned char*>(out[i].data() + at);
    }
    ec_encode_data(static_cast<int>(slice), static_cast<int>(in.size()),
                   static_cast<int>(tables.rows), const_cast<unsigned char*>(tables.bytes.data()),
                   from.data(), to.data());
  }
}

}  // namespace

struct ReedSolomon::Impl {
  // Which shards there are, ascending, and which are asked for, in order.
  struct Pattern {
    std::vector<std::uint8_t> present;
    std::vector<std::uint8_t> wanted;
    auto operator<=>(const Pattern&) const = default;
  };
  struct CacheEntry {
    std::shared_ptr<const Tables> tables;
    std::list<Pattern>::iterator place;
  };

  Impl(unsigned data_shards, unsigned total_shards)
      : k(data_shards),
        n(total_shards),
        matrix(make_matrix(data_shards, total_shards)),
        encode_tables(Coefficients(matrix.begin() + std::ptrdiff_t{k} * k, matrix.end()), k,
                      n - k) {}

  // n rows of k: the identity, then 1 / (i ^ j), of which every square part can be inverted.
  static Coefficients make_matrix(unsigned k, unsigned n) {
    Coefficients out(std::size_t{n} * k);
    gf_gen_cauchy1_matrix(out.data(), static_cast<int>(n), static_cast<int>(k));
    return out;
  }

  std::shared_ptr<const Tables> make_tables(const Pattern& pattern) const;
  std::shared_ptr<const Tables> tables_for(const Pattern& pattern) QSFS_EXCLUDES(mu);

  const unsigned k;
  const unsigned n;
  const Coefficients matrix;
  const Tables encode_tables;

  Mutex mu;
  std::map<Pattern, CacheEntry> cache QSFS_GUARDED_BY(mu);
  std::list<Pattern> by_use QSFS_GUARDED_BY(mu);  // The latest first.
  std::size_t cached_bytes QSFS_GUARDED_BY(mu) = 0;
};

// The rows that make the wanted shards from the present ones: invert the present rows to get the
// data shards, then apply the wanted rows to those.
std::shared_ptr<const Tables> ReedSolomon::Impl::make_tables(const Pattern& pattern) const {
  Coefficients present_rows(std::size_t{k} * k);
  for (unsigned row = 0; row < k; ++row) {
    const auto from = matrix.begin() + pattern.present[row] * static_cast<std::ptrdiff_t>(k);
    std::copy_n(from, k, present_rows.begin() + row * static_cast<std::ptrdiff_t>(k));
  }
  Coefficients inverse(std::size_t{k} * k);
  const int rc = gf_invert_matrix(present_rows.data(), inverse.data(), static_cast<int>(k));
  QSFS_CHECK(rc == 0);

  Coefficients rows(pattern.wanted.size() * k);
  for (std::size_t row = 0; row < pattern.wanted.size(); ++row) {
    const unsigned char* wanted = matrix.data() + std::size_t{pattern.wanted[row]} * k;
    for (unsigned column = 0; column < k; ++column) {
      unsigned char sum = 0;
      for (unsigned i = 0; i < k; ++i) {
        sum ^= gf_mul(wanted[i], inverse[std::size_t{i} * k + column]);
      }
      rows[row * k + column] = sum;
    }
  }
  return std::make_shared<const Tables>(rows, k, static_cast<unsigned>(pattern.wanted.size()));
}

std::shared_ptr<const Tables> ReedSolomon::Impl::tables_for(const Pattern& pattern) {
  {
    MutexLock lock(mu);
    if (const auto found = cache.find(pattern); found != cache.end()) {
      by_use.splice(by_use.begin(), by_use, found->second.place);
      return found->second.tables;
    }
  }
  // Outside the lock: an inversion of 255 rows takes milliseconds. Two threads may do the same one.
  std::shared_ptr<const Tables> tables = make_tables(pattern);
  MutexLock lock(mu);
  const auto [at, inserted] = cache.try_emplace(pattern);
  if (!inserted) return at->second.tables;
  by_use.push_front(pattern);
  at->second = CacheEntry{tables, by_use.begin()};
  cached_bytes += tables->bytes.size();
  while (cache.size() > kDecodeTablesMax ||
         (cached_bytes > kDecodeTableBytesMax && cache.size() > 1)) {
    const auto oldest = cache.find(by_use.back());
    cached_bytes -= oldest->second.tables->bytes.size();
    cache.erase(oldest);
    by_use.pop_back();
  }
  return tables;
}

ReedSolomon::ReedSolomon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ReedSolomon::~ReedSolomon() = default;

Result<std::shared_ptr<const ReedSolomon>> ReedSolomon::get(unsigned data_shards,
                                                            unsigned total_shards) {
  if (data_shards < 1 || data_shards > total_shards || total_shards > kShardsMax) {
    return fail(Errc::kInvalidArgument, "erasure code " + std::to_string(data_shards) + " of " +
                                            std::to_string(total_shards) +
                                            ": there must be at least 1 data shard and at most " +
                                            std::to_string(kShardsMax) + " shards in all");
  }
  // Leaked on purpose: codecs may be in use while static objects are destroyed.
  static Mutex& mu = *new Mutex;
  static auto& instances =
      *new std::map<std::pair<unsigned, unsigned>, std::shared_ptr<const ReedSolomon>>;
  MutexLock lock(mu);
  std::shared_ptr<const ReedSolomon>& instance = instances[{data_shards, total_shards}];
  if (!instance) {
    instance.reset(new ReedSolomon(std::make_unique<Impl>(data_shards, total_shards)));
  }
  return instance;
}

unsigned ReedSolomon::data_shards() const { return impl_->k; }
unsigned ReedSolomon::total_shards() const { return impl_->n; }

void ReedSolomon::encode(std::span<const Bytes> data, std::span<const MutableBytes> parity) const {
  QSFS_CHECK(data.size() == impl_->k && parity.size() == impl_->n - impl_->k);
  const std::size_t len = data.front().size();
  QSFS_CHECK(std::ranges::all_of(data, [&](Bytes shard) { return shard.size() == len; }));
  QSFS_CHECK(std::ranges::all_of(parity, [&](MutableBytes shard) { return shard.size() == len; }));
  multiply(impl_->encode_tables, data, parity);
}

Status ReedSolomon::reconstruct(std::span<const unsigned> present,
                                std::span<const Bytes> present_bytes,
                                std::span<const unsigned> wanted,
                                std::span<const MutableBytes> wanted_bytes) const {
  if (present.size() != impl_->k || present_bytes.size() != present.size() ||
      wanted_bytes.size() != wanted.size()) {
    return fail(Errc::kInvalidArgument, "reconstruction takes exactly " + std::to_string(impl_->k) +
                                            " shards, and as many places as shards are wanted");
  }
  // By index: what was present in another order is the same pattern.
  std::array<const Bytes*, kShardsMax> bytes_of{};
  std::bitset<kShardsMax> seen_wanted;
  for (std::size_t i = 0; i < present.size(); ++i) {
    if (present[i] >= impl_->n || bytes_of[present[i]] != nullptr) {
      return fail(Errc::kInvalidArgument, "reconstruction: shard " + std::to_string(present[i]) +
                                              " is given twice or out of range");
    }
    bytes_of[present[i]] = &present_bytes[i];
  }
  for (const unsigned index : wanted) {
    if (index >= impl_->n || seen_wanted[index]) {
      return fail(Errc::kInvalidArgument, "reconstruction: shard " + std::to_string(index) +
                                              " is wanted twice or out of range");
    }
    seen_wanted.set(index);
  }
  const std::size_t len = present_bytes.front().size();
  if (!std::ranges::all_of(present_bytes, [&](Bytes b) { return b.size() == len; }) ||
      !std::ranges::all_of(wanted_bytes, [&](MutableBytes b) { return b.size() == len; })) {
    return fail(Errc::kInvalidArgument, "reconstruction: shards of one stripe have one length");
  }
  if (wanted.empty()) return {};

  Impl::Pattern pattern;
  pattern.present.reserve(impl_->k);
  std::vector<Bytes> in;
  in.reserve(impl_->k);
  for (unsigned index = 0; index < impl_->n; ++index) {
    if (bytes_of[index] == nullptr) continue;
    pattern.present.push_back(static_cast<std::uint8_t>(index));
    in.push_back(*bytes_of[index]);
  }
  for (const unsigned index : wanted) pattern.wanted.push_back(static_cast<std::uint8_t>(index));
  multiply(*impl_->tables_for(pattern), in, wanted_bytes);
  return {};
}

}  // namespace qsfs::erasure
