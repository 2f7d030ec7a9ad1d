// Reed-Solomon over 1 MiB of data, in bytes of data per second.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/check.h"
#include "bench/sample_data.h"
#include "erasure/reed_solomon.h"

namespace qsfs::erasure {
namespace {

constexpr std::size_t kDataLen = kMiB;

struct Stripe {
  Stripe(unsigned k, unsigned n)
      : code(ReedSolomon::get(k, n).value()), shards(n, bench::sample_random(kDataLen / k)) {
    for (unsigned i = 0; i < n; ++i) {
      if (i < k) {
        data.emplace_back(shards[i]);
      } else {
        parity.emplace_back(shards[i]);
      }
    }
  }
  std::shared_ptr<const ReedSolomon> code;
  std::vector<Buffer> shards;
  std::vector<Bytes> data;
  std::vector<MutableBytes> parity;
};

void BM_Encode(benchmark::State& state) {
  const Stripe stripe(static_cast<unsigned>(state.range(0)),
                      static_cast<unsigned>(state.range(0) + state.range(1)));
  for (auto _ : state) {
    stripe.code->encode(stripe.data, stripe.parity);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kDataLen));
}

// The first n - k data shards are lost.
void BM_Reconstruct(benchmark::State& state) {
  const auto k = static_cast<unsigned>(state.range(0));
  const auto m = static_cast<unsigned>(state.range(1));
  Stripe stripe(k, k + m);
  std::vector<unsigned> present;
  std::vector<Bytes> present_bytes;
  std::vector<unsigned> wanted;
  std::vector<MutableBytes> wanted_bytes;
  for (unsigned i = 0; i < k + m; ++i) {
    if (i < m) {
      wanted.push_back(i);
      wanted_bytes.emplace_back(stripe.shards[i]);
    } else {
      present.push_back(i);
      present_bytes.emplace_back(stripe.shards[i]);
    }
  }
  for (auto _ : state) {
    QSFS_CHECK(stripe.code->reconstruct(present, present_bytes, wanted, wanted_bytes).has_value());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kDataLen));
}

BENCHMARK(BM_Encode)->Args({4, 2})->Args({10, 5})->Args({16, 4})->Args({20, 10});
BENCHMARK(BM_Reconstruct)->Args({4, 2})->Args({10, 5})->Args({16, 4})->Args({20, 10});

}  // namespace
}  // namespace qsfs::erasure

BENCHMARK_MAIN();
