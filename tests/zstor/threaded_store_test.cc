// The store with real threads: side by side, slow and hanging backends, bounded memory. No test
// measures time; where something must not wait, the test ends only if it does not.
#include "zstor/threaded_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "base/thread.h"
#include "tests/zstor/store_fixture.h"
#include "zstor/store_backend.h"
#include "zstor/stripe_pool.h"

namespace qsfs::zstor {
namespace {

using testing::BytesSource;
using testing::GeneratedSource;
using testing::noise;

constexpr std::uint32_t kStripe = 16 * 1024;

// A backend in memory whose calls can be held until the test lets them go.
class HeldBackend final : public zdb::Backend {
 public:
  struct Shared {
    Mutex mu;
    CondVar changed;
    std::map<std::string, Buffer, std::less<>> values QSFS_GUARDED_BY(mu);
    bool held QSFS_GUARDED_BY(mu) = false;
    bool discard QSFS_GUARDED_BY(mu) = false;
  };
  explicit HeldBackend(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

  Result<Buffer> set(Bytes key, Bytes value, Duration) override {
    MutexLock lock(shared_->mu);
    wait_locked();
    if (!shared_->discard) {
      shared_->values[std::string(as_text(key))] = Buffer(value.begin(), value.end());
    }
    return Buffer(key.begin(), key.end());
  }
  Result<std::optional<Buffer>> get(Bytes key, Duration) override {
    MutexLock lock(shared_->mu);
    wait_locked();
    const auto found = shared_->values.find(as_text(key));
    if (found == shared_->values.end()) return std::optional<Buffer>();
    return std::optional<Buffer>(found->second);
  }
  Result<bool> remove(Bytes key, Duration) override {
    MutexLock lock(shared_->mu);
    return shared_->values.erase(std::string(as_text(key))) > 0;
  }
  Result<bool> exists(Bytes, Duration) override { return true; }
  Result<std::optional<std::uint64_t>> length(Bytes, Duration) override {
    return std::optional<std::uint64_t>();
  }
  Result<zdb::CheckVerdict> check(Bytes, Duration) override { return zdb::CheckVerdict::kGood; }
  Result<zdb::ScanPage> scan(Bytes, Duration) override { return zdb::ScanPage{}; }
  Result<zdb::NamespaceInfo> info(Duration) override {
    zdb::NamespaceInfo info;
    info.free_bytes = kGiB;
    return info;
  }
  Result<zdb::ServerInfo> server_info(Duration) override { return zdb::ServerInfo{}; }
  zdb::BackendStats stats() const override { return {}; }

 private:
  void wait_locked() QSFS_REQUIRES(shared_->mu) {
    while (shared_->held) shared_->changed.wait(shared_->mu);
  }

  const std::shared_ptr<Shared> shared_;
};

class ThreadedStoreTest : public ::testing::Test {
 protected:
  ThreadedStoreTest() {
    auto config = std::make_shared<Config>();
    config->shards = {.minimal_shards = 4, .expected_shards = 6};
    config->encryption.key =
        std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
    config->meta.encryption.key = config->encryption.key;
    config->meta.prefix = "vol";
    config->archive.stripe_size_bytes = kStripe;
    config->groups.resize(1);
    for (unsigned i = 0; i < 7; ++i) add(config->groups[0].backends, "d" + std::to_string(i));
    for (unsigned i = 0; i < 3; ++i) add(config->meta.backends, "m" + std::to_string(i));
    store_ = ObjectStore::open(
                 config, {.clock = system_clock(),
                          .random = system_random(),
                          .cpu = cpu_,
                          .io = io_,
                          .make_backend =
                              [this](const zdb::BackendOptions& options) {
                                return Result<std::unique_ptr<zdb::Backend>>(
                                    std::make_unique<HeldBackend>(shared(options.address.host)));
                              }})
                 .value();
  }
  ~ThreadedStoreTest() override {
    for (auto& [name, shared] : shared_) hold(name, false);
  }

  std::shared_ptr<HeldBackend::Shared> shared(const std::string& name) { return shared_.at(name); }
  void hold(const std::string& name, bool held) {
    MutexLock lock(shared_.at(name)->mu);
    shared_.at(name)->held = held;
    shared_.at(name)->changed.notify_all();
  }
  Result<Manifest> put(Bytes bytes) {
    BytesSource source(bytes);
    return put(source);
  }
  Result<Manifest> put(Source& source) {
    PutOptions options;
    system_random().fill(options.id.bytes);
    return store_->put(source, options);
  }
  std::string holder(const Manifest& manifest, unsigned index) {
    return manifest.backends[manifest.shard(0, index).backend].address.substr(0, 2);
  }

  ThreadPool cpu_{{.name = "cpu", .threads = 3}};
  ThreadPool io_{{.name = "io", .threads = 40, .queue_len_max = 4096}};
  std::unique_ptr<ObjectStore> store_;

 private:
  void add(std::vector<BackendConfig>& list, const std::string& name) {
    list.push_back(make_backend_config({.host = name, .port = 9900}, "ns", Password{}));
    shared_.emplace(name, std::make_shared<HeldBackend::Shared>());
  }
  std::map<std::string, std::shared_ptr<HeldBackend::Shared>> shared_;
};

TEST_F(ThreadedStoreTest, PutsAndReadsSideBySide) {
  std::vector<std::jthread> users;
  std::atomic<unsigned> wrong = 0;
  for (unsigned user = 0; user < 4; ++user) {
    users.push_back(start_thread("user", [&, user](const std::stop_token&) {
      for (unsigned round = 0; round < 4; ++round) {
        const Buffer bytes = noise((user + 1) * 7 * kStripe + round, user * 10 + round);
        const auto manifest = put(bytes);
        Buffer out(bytes.size());
        if (!manifest || !store_->read(*manifest, 0, out, {}) || out != bytes) ++wrong;
        if (manifest && store_->verify(*manifest, VerifyMode::kReadBack)->faults.size() != 0) {
          ++wrong;
        }
        const std::string name = "u" + std::to_string(user);
        if (!store_->meta().put(name, round + 1, as_bytes("value"))) ++wrong;
        const auto value = store_->meta().get(name);
        if (!value || !*value || (*value)->generation != round + 1) ++wrong;
        if (manifest && store_->remove(*manifest).value() != 0) ++wrong;
      }
    }));
  }
  users.clear();
  EXPECT_EQ(wrong.load(), 0U);
}

TEST_F(ThreadedStoreTest, PutDoesNotWaitForABackendThatHangs) {
  store_->probe();
  const Buffer bytes = noise(60 * kStripe, 1);
  hold("d3", true);
  const auto manifest = put(bytes);
  ASSERT_TRUE(manifest) << manifest.error().message();
  EXPECT_EQ(manifest->missing_shards_max(), 0U);
  // A second one leaves it alone from the start, so far as the first has met it.
  ASSERT_TRUE(put(bytes));
  Buffer out(bytes.size());
  ASSERT_TRUE(store_->read(*manifest, 0, out, {}));
  EXPECT_EQ(out, bytes);
}

TEST_F(ThreadedStoreTest, TwoOfSevenHangAndThePutIsDegraded) {
  store_->probe();
  const Buffer bytes = noise(30 * kStripe, 1);
  hold("d0", true);
  hold("d1", true);
  const auto manifest = put(bytes);
  ASSERT_TRUE(manifest) << manifest.error().message();
  EXPECT_EQ(manifest->missing_shards_max(), 1U);
}

TEST_F(ThreadedStoreTest, ReadDoesNotWaitForBackendsThatHang) {
  const Buffer bytes = noise(20 * kStripe, 1);
  const Manifest manifest = put(bytes).value();
  for (unsigned a = 0; a < 6; ++a) {
    hold(holder(manifest, a), true);
    hold(holder(manifest, (a + 1) % 6), true);
    Buffer out(bytes.size());
    const Status read = store_->read(manifest, 0, out, {.timeout = std::chrono::seconds(100)});
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(out, bytes);
    hold(holder(manifest, a), false);
    hold(holder(manifest, (a + 1) % 6), false);
  }
}

TEST_F(ThreadedStoreTest, DeadlineEndsAReadThatCannotSucceed) {
  const Buffer bytes = noise(kStripe, 1);
  const Manifest manifest = put(bytes).value();
  for (unsigned i = 0; i < 3; ++i) hold(holder(manifest, i), true);
  Buffer out(bytes.size());
  const Status read = store_->read(manifest, 0, out, {.timeout = std::chrono::milliseconds(300)});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::kTimeout);
}

TEST_F(ThreadedStoreTest, MetaDoesNotWaitForAMinorityThatHangs) {
  hold("m1", true);
  ASSERT_TRUE(store_->meta().put("a", 1, as_bytes("one")));
  EXPECT_EQ(store_->meta().get("a").value()->generation, 1U);
  hold("m1", false);
  // A late write of the older generation must not undo the newer one.
  ASSERT_TRUE(store_->meta().put("a", 2, as_bytes("two")));
  EXPECT_EQ(store_->meta().get("a").value()->generation, 2U);
}

TEST_F(ThreadedStoreTest, StoreGoesWhileCallsAreOut) {
  store_->probe();
  // The object lies on six of the seven: on one of these at least.
  hold("d0", true);
  hold("d1", true);
  const auto manifest = put(noise(10 * kStripe, 1));
  ASSERT_TRUE(manifest) << manifest.error().message();
  const std::jthread opener = start_thread("opener", [&](const std::stop_token&) {
    hold("d0", false);
    hold("d1", false);
  });
  store_.reset();
}

TEST_F(ThreadedStoreTest, MemoryOfALargePutIsBounded) {
  for (unsigned i = 0; i < 7; ++i) {
    MutexLock lock(shared("d" + std::to_string(i))->mu);
    shared("d" + std::to_string(i))->discard = true;
  }
  // How much was read before any shard was stored.
  class CountingSource final : public Source {
   public:
    explicit CountingSource(std::uint64_t size) : inner_(size, 1) {}
    Result<std::size_t> read(MutableBytes out) override {
      QSFS_ASSIGN(const std::size_t len, inner_.read(out));
      bytes += len;
      return len;
    }
    std::atomic<std::uint64_t> bytes = 0;

   private:
    GeneratedSource inner_;
  };
  store_->probe();
  for (unsigned i = 0; i < 7; ++i) hold("d" + std::to_string(i), true);
  CountingSource source(400 * std::uint64_t{kStripe});
  std::optional<Result<Manifest>> manifest;
  {
    const std::jthread putter =
        start_thread("putter", [&](const std::stop_token&) { manifest = put(source); });
    while (source.bytes.load() < 4 * std::uint64_t{kStripe}) std::this_thread::yield();
    EXPECT_LE(source.bytes.load(), (kPutStripesInFlight + 1) * std::uint64_t{kStripe} + 1);
    for (unsigned i = 0; i < 7; ++i) hold("d" + std::to_string(i), false);
  }
  ASSERT_TRUE(manifest && *manifest);
  EXPECT_EQ((*manifest)->stripes.size(), 400U);
}

}  // namespace
}  // namespace qsfs::zstor
