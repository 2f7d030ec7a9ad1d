// A store over simulated 0-DBs: data backends d0, d1… and meta backends m0, m1…, in one thread and
// on a simulated clock.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/task_runner.h"
#include "tests/sim/sim_backend.h"
#include "tests/sim/sim_clock.h"
#include "zstor/config.h"
#include "zstor/object_store.h"

namespace qsfs::zstor::testing {

inline Buffer noise(std::size_t len, std::uint64_t seed) {
  Buffer out(len);
  SeededRandom(seed).fill(out);
  return out;
}

// Bytes in order, as many as it was told; remembers none of them.
class GeneratedSource final : public Source {
 public:
  GeneratedSource(std::uint64_t size, std::uint64_t seed) : left_(size), random_(seed) {}
  Result<std::size_t> read(MutableBytes out) override {
    const auto len = static_cast<std::size_t>(std::min<std::uint64_t>(left_, out.size()));
    random_.fill(out.first(len));
    left_ -= len;
    return len;
  }

 private:
  std::uint64_t left_;
  SeededRandom random_;
};

class BytesSource final : public Source {
 public:
  explicit BytesSource(Bytes bytes) : bytes_(bytes) {}
  Result<std::size_t> read(MutableBytes out) override {
    const std::size_t len = std::min(out.size(), bytes_.size());
    std::copy_n(bytes_.begin(), len, out.begin());
    bytes_ = bytes_.subspan(len);
    return len;
  }

 private:
  Bytes bytes_;
};

struct StoreShape {
  unsigned data_shards = 4;
  unsigned total_shards = 6;
  unsigned data_backends = 6;
  unsigned meta_backends = 3;
  std::uint32_t stripe_size = 4096;
  zdb::NamespaceMode mode = zdb::NamespaceMode::kUser;
};

// The servers of a store, apart from it: they stay when the store goes.
class SimCluster {
 public:
  explicit SimCluster(const StoreShape& shape) : shape_(shape) {
    for (unsigned i = 0; i < shape.data_backends; ++i) add("d" + std::to_string(i), shape.mode);
    for (unsigned i = 0; i < shape.meta_backends; ++i) {
      add("m" + std::to_string(i), zdb::NamespaceMode::kUser);
    }
  }

  sim::SimZdb& data(unsigned i) { return *servers_.at("d" + std::to_string(i)); }
  sim::SimZdb& meta(unsigned i) { return *servers_.at("m" + std::to_string(i)); }
  sim::SimClock& clock() { return clock_; }

  [[nodiscard]] std::shared_ptr<const Config> config() const {
    auto config = std::make_shared<Config>();
    config->shards = {.minimal_shards = shape_.data_shards, .expected_shards = shape_.total_shards};
    config->encryption.key = key_;
    config->meta.encryption.key = meta_key_;
    config->meta.prefix = "vol";
    config->volume.uuid.fill(std::byte{7});
    config->archive.stripe_size_bytes = shape_.stripe_size;
    config->groups.resize(1);
    for (const auto& [name, server] : servers_) {
      auto& list = name[0] == 'd' ? config->groups[0].backends : config->meta.backends;
      list.push_back(make_backend_config({.host = name, .port = 9900}, "ns", Password{}));
    }
    return config;
  }

  StoreDependencies dependencies(TaskRunner& cpu, TaskRunner& io, Random& random) {
    return {.clock = clock_,
            .random = random,
            .cpu = cpu,
            .io = io,
            .make_backend = [this](const zdb::BackendOptions& options) {
              return Result<std::unique_ptr<zdb::Backend>>(
                  servers_.at(options.address.host)->make_backend(options.name_space));
            }};
  }

 private:
  void add(const std::string& name, zdb::NamespaceMode mode) {
    sim::SimZdbOptions options;
    options.address = name;
    options.seed = servers_.size() + 1;
    auto server = std::make_unique<sim::SimZdb>(options, clock_);
    server->create_namespace("ns", {.mode = mode});
    servers_.emplace(name, std::move(server));
  }

  const StoreShape shape_;
  std::shared_ptr<const crypto::SecretKey> key_ =
      std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  std::shared_ptr<const crypto::SecretKey> meta_key_ =
      std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  sim::SimClock clock_;
  std::map<std::string, std::unique_ptr<sim::SimZdb>> servers_;
};

// One thread; the same calls in the same order each time.
class SimStore {
 public:
  explicit SimStore(const StoreShape& shape = {}) : shape_(shape), cluster_(shape) { reopen(); }

  void reopen(bool read_only = false) {
    store_.reset();
    StoreDependencies dependencies = cluster_.dependencies(runner_, runner_, random_);
    dependencies.read_only = read_only;
    store_ = ObjectStore::open(cluster_.config(), dependencies).value();
  }

  ObjectStore& operator*() { return *store_; }
  ObjectStore* operator->() { return store_.get(); }
  SimCluster& cluster() { return cluster_; }
  sim::SimZdb& data(unsigned i) { return cluster_.data(i); }
  sim::SimZdb& meta(unsigned i) { return cluster_.meta(i); }

  Result<Manifest> put(Bytes bytes, std::uint64_t generation = 1) {
    BytesSource source(bytes);
    return store_->put(source, options(generation));
  }
  PutOptions options(std::uint64_t generation = 1) {
    PutOptions options;
    options.id.bytes.fill(std::byte{++last_id_});
    options.generation = generation;
    options.label = "object";
    return options;
  }
  Result<Buffer> read(const Manifest& manifest) {
    Buffer out(manifest.size);
    QSFS_TRY(store_->read(manifest, 0, out, {}));
    return out;
  }
  std::uint64_t stored_entries() {
    std::uint64_t count = 0;
    for (unsigned i = 0; i < shape_.data_backends; ++i) count += data(i).entry_count("ns");
    return count;
  }
  std::uint64_t gets() {
    std::uint64_t count = 0;
    for (unsigned i = 0; i < shape_.data_backends; ++i) count += data(i).totals().gets;
    return count;
  }
  void clear_faults() {
    for (unsigned i = 0; i < shape_.data_backends; ++i) data(i).clear_faults();
    for (unsigned i = 0; i < shape_.meta_backends; ++i) meta(i).clear_faults();
  }
  // Long enough for every cool-down to end.
  void cool_down() { cluster_.clock().advance(std::chrono::minutes(5)); }
  // The number of the server that holds a shard.
  static unsigned server_of(const Manifest& manifest, std::uint32_t stripe, unsigned index) {
    const std::string& address = manifest.backends[manifest.shard(stripe, index).backend].address;
    return static_cast<unsigned>(address.at(1) - '0');
  }

 private:
  const StoreShape shape_;
  SimCluster cluster_;
  InlineRunner runner_;
  SeededRandom random_{42};
  std::uint8_t last_id_ = 0;
  std::unique_ptr<ObjectStore> store_;
};

}  // namespace qsfs::zstor::testing
