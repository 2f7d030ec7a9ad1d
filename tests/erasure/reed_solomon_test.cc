#include "erasure/reed_solomon.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/random.h"
#include "base/thread.h"

namespace qsfs::erasure {
namespace {

// All n shards of random data, encoded.
struct Encoded {
  std::shared_ptr<const ReedSolomon> code;
  std::vector<Buffer> shards;
};

Encoded encode(unsigned k, unsigned n, std::size_t len, Random& random) {
  Encoded out{ReedSolomon::get(k, n).value(), std::vector<Buffer>(n, Buffer(len))};
  std::vector<Bytes> data;
  std::vector<MutableBytes> parity;
  for (unsigned i = 0; i < n; ++i) {
    if (i < k) {
      random.fill(out.shards[i]);
      data.push_back(out.shards[i]);
    } else {
      parity.push_back(out.shards[i]);
    }
  }
  out.code->encode(data, parity);
  return out;
}

// Restores every shard that is not in `present` from those that are, and compares.
void expect_restored(const Encoded& encoded, const std::vector<unsigned>& present) {
  const std::size_t len = encoded.shards[0].size();
  std::vector<Bytes> present_bytes;
  for (const unsigned i : present) present_bytes.push_back(encoded.shards[i]);
  std::vector<unsigned> wanted;
  for (unsigned i = 0; i < encoded.shards.size(); ++i) {
    if (std::ranges::find(present, i) == present.end()) wanted.push_back(i);
  }
  std::vector<Buffer> restored(wanted.size(), Buffer(len, std::byte{0xee}));
  std::vector<MutableBytes> wanted_bytes(restored.begin(), restored.end());
  const Status status = encoded.code->reconstruct(present, present_bytes, wanted, wanted_bytes);
  ASSERT_TRUE(status) << status.error().message();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(restored[i], encoded.shards[wanted[i]])
        << "shard " << wanted[i] << " of " << encoded.code->data_shards() << "/"
        << encoded.code->total_shards();
  }
}

std::vector<unsigned> random_subset(unsigned n, unsigned k, Random& random) {
  std::vector<unsigned> all(n);
  std::iota(all.begin(), all.end(), 0U);
  for (unsigned i = 0; i < k; ++i) std::swap(all[i], all[i + random.below(n - i)]);
  all.resize(k);
  return all;
}

TEST(ReedSolomonTest, AnyKOfNRestoreTheRestForAllSmallCodes) {
  SeededRandom random(1);
  for (unsigned n = 1; n <= 8; ++n) {
    for (unsigned k = 1; k <= n; ++k) {
      const Encoded encoded = encode(k, n, 67, random);
      for (unsigned set = 0; set < 1U << n; ++set) {
        if (static_cast<unsigned>(std::popcount(set)) != k) continue;
        std::vector<unsigned> present;
        for (unsigned i = 0; i < n; ++i) {
          if ((set >> i & 1) != 0) present.push_back(i);
        }
        expect_restored(encoded, present);
      }
    }
  }
}

TEST(ReedSolomonTest, RandomLossesOfWideCodesAreRestored) {
  SeededRandom random(2);
  struct Case {
    unsigned k, n, rounds;
  };
  for (const auto& [k, n, rounds] : {Case{16, 20, 60}, Case{20, 30, 60}, Case{128, 255, 6},
                                     Case{1, 255, 4}, Case{254, 255, 3}, Case{255, 255, 1}}) {
    const Encoded encoded = encode(k, n, 129, random);
    for (unsigned round = 0; round < rounds; ++round) {
      expect_restored(encoded, random_subset(n, k, random));
    }
  }
}

TEST(ReedSolomonTest, AllParityAloneRestoresTheData) {
  SeededRandom random(3);
  const Encoded encoded = encode(4, 8, 1000, random);
  expect_restored(encoded, {4, 5, 6, 7});
  expect_restored(encoded, {7, 5, 4, 6});
}

TEST(ReedSolomonTest, LengthAndAlignmentDoNotMatter) {
  SeededRandom random(5);
  for (std::size_t len = 0; len <= 130; ++len) {
    for (const std::size_t shift : {0U, 1U, 7U}) {
      // The same bytes at another alignment give the same parity.
      const Encoded aligned = encode(3, 5, len, random);
      std::vector<Buffer> moved(5, Buffer(len + shift));
      std::vector<Bytes> data;
      std::vector<MutableBytes> parity;
      for (unsigned i = 0; i < 5; ++i) {
        const MutableBytes place = MutableBytes(moved[i]).subspan(shift);
        if (i < 3) {
          std::ranges::copy(aligned.shards[i], place.begin());
          data.push_back(place);
        } else {
          parity.push_back(place);
        }
      }
      aligned.code->encode(data, parity);
      for (unsigned i = 3; i < 5; ++i) {
        ASSERT_TRUE(std::ranges::equal(parity[i - 3], aligned.shards[i])) << len << "+" << shift;
      }
      expect_restored(aligned, {1, 3, 4});
    }
  }
}

// The parity of known data, so that a library that chose another matrix is noticed: what is stored
// must stay readable.
TEST(ReedSolomonTest, KeepsItsMatrix) {
  const auto code = ReedSolomon::get(2, 4).value();
  const Buffer a = from_hex("0100").value();
  const Buffer b = from_hex("0001").value();
  Buffer p(2);
  Buffer q(2);
  const std::vector<Bytes> data = {a, b};
  const std::vector<MutableBytes> parity = {p, q};
  code->encode(data, parity);
  // Row i, column j is 1 / (i xor j): 1/2 1/3, then 1/3 1/2; in this field 1/2 = 8e, 1/3 = f4.
  EXPECT_EQ(to_hex(p), "8ef4");
  EXPECT_EQ(to_hex(q), "f48e");
}

TEST(ReedSolomonTest, RefusesImpossibleCodes) {
  for (const auto& [k, n] : {std::pair{0U, 0U}, {0U, 3U}, {4U, 3U}, {1U, 256U}, {256U, 256U}}) {
    const auto code = ReedSolomon::get(k, n);
    ASSERT_FALSE(code) << k << "/" << n;
    EXPECT_EQ(code.error().code, Errc::kInvalidArgument);
  }
}

TEST(ReedSolomonTest, RefusesWrongIndicesCountsAndLengths) {
  const auto code = ReedSolomon::get(2, 4).value();
  const Buffer a(8);
  const Buffer longer(9);
  Buffer out(8);
  using Indices = std::vector<unsigned>;
  const auto run = [&](const Indices& present, const std::vector<Bytes>& bytes,
                       const Indices& wanted, std::vector<MutableBytes> places) {
    const Status status = code->reconstruct(present, bytes, wanted, places);
    return status ? Errc::kInternal : status.error().code;
  };
  EXPECT_EQ(run({0, 0}, {a, a}, {2}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 4}, {a, a}, {2}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0}, {a}, {2}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 1, 2}, {a, a, a}, {3}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 1}, {a}, {2}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 1}, {a, a}, {4}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 1}, {a, a}, {2, 2}, {out, out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 1}, {a, a}, {2, 3}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 1}, {a, longer}, {2}, {out}), Errc::kInvalidArgument);
  EXPECT_EQ(run({0, 1}, {a, a}, {2}, {MutableBytes(out).first(7)}), Errc::kInvalidArgument);
  EXPECT_TRUE(code->reconstruct(Indices{0, 1}, std::vector<Bytes>{a, a}, {}, {}));
}

TEST(ReedSolomonTest, MorePatternsThanTheCacheHoldsStillRestore) {
  SeededRandom random(6);
  const Encoded encoded = encode(5, 10, 31, random);
  for (std::size_t round = 0; round < 3 * ReedSolomon::kDecodeTablesMax; ++round) {
    expect_restored(encoded, random_subset(10, 5, random));
  }
}

TEST(ReedSolomonTest, ThreadsShareOneInstance) {
  EXPECT_EQ(ReedSolomon::get(4, 6).value(), ReedSolomon::get(4, 6).value());
  SeededRandom random(7);
  const Encoded encoded = encode(6, 12, 64, random);
  std::vector<std::jthread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.push_back(start_thread("rs_test", [&encoded, t](const std::stop_token&) {
      SeededRandom own(t);
      for (int i = 0; i < 200; ++i) expect_restored(encoded, random_subset(12, 6, own));
    }));
  }
}

}  // namespace
}  // namespace qsfs::erasure
