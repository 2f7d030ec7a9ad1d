// How much of the machine's arithmetic the object store turns into stored data.
//
//   archive_bench FILE [--runs N] [--only NAME] [--zdb PATH-OF-QSFS-ZDB] [--json] [--dir DIR]
//
// Writing: a bare loop of zstd -1, AEAD and Reed-Solomon 4+2 on all CPUs, against put() to six
// embedded backends and to six servers. Reading: the codec's decode() on all CPUs against
// read_stripe() with the next stripes fetched side by side. Medians of runs that take turns.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/posix_disk.h"
#include "base/random.h"
#include "crypto/aead.h"
#include "erasure/reed_solomon.h"
#include "zstor/shard.h"
#include "zstor/stripe_codec.h"
#include "zstor/threaded_store.h"

extern char** environ;

namespace qsfs::zstor {
namespace {

constexpr unsigned kDataShards = 4;
constexpr unsigned kTotalShards = 6;
constexpr std::size_t kStripeLen = kMiB;
constexpr std::uint64_t kFileSizeMax = 4 * kGiB;

// For a tool that measures: whatever fails ends it.
template <class T>
T need(Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "archive_bench: {}\n", result.error().message());
  std::exit(1);
}
void need(const Status& status) {
  if (status) return;
  fmt::print(stderr, "archive_bench: {}\n", status.error().message());
  std::exit(1);
}

class MemorySource final : public Source {
 public:
  explicit MemorySource(Bytes bytes) : bytes_(bytes) {}
  Result<std::size_t> read(MutableBytes out) override {
    const std::size_t len = std::min(out.size(), bytes_.size());
    std::copy_n(bytes_.begin(), len, out.begin());
    bytes_ = bytes_.subspan(len);
    return len;
  }

 private:
  Bytes bytes_;
};

std::size_t stripe_count(Bytes file) { return (file.size() + kStripeLen - 1) / kStripeLen; }
Bytes stripe_of(Bytes file, std::size_t stripe) {
  return file.subspan(stripe * kStripeLen, std::min(kStripeLen, file.size() - stripe * kStripeLen));
}

// Calls `body` for each stripe, on all CPUs; `body` gets the number of its thread.
void for_each_stripe(Bytes file, std::size_t threads,
                     const std::function<void(std::size_t, std::size_t)>& body) {
  std::atomic<std::size_t> next = 0;
  std::vector<std::jthread> running;
  for (std::size_t t = 0; t < threads; ++t) {
    running.push_back(start_thread("bench/" + std::to_string(t), [&, t](const std::stop_token&) {
      for (std::size_t i = next++; i < stripe_count(file); i = next++) body(t, i);
    }));
  }
}

void run_bare_loop(Bytes file, std::size_t threads) {
  struct Scratch {
    ZSTD_CCtx* context = ZSTD_createCCtx();
    Buffer packed = Buffer(ZSTD_compressBound(kStripeLen) + 64);
    Buffer shards = Buffer(2 * kTotalShards * (kStripeLen / kDataShards + 64));
    ~Scratch() { ZSTD_freeCCtx(context); }
  };
  std::vector<Scratch> scratch(threads);
  const auto coder = need(erasure::ReedSolomon::get(kDataShards, kTotalShards));
  const auto aead = crypto::Aead::make(aead_for_writing(), crypto::SecretKey::generate());
  for_each_stripe(file, threads, [&](std::size_t thread, std::size_t stripe) {
    Scratch& own = scratch[thread];
    const Bytes plain = stripe_of(file, stripe);
    const std::size_t packed = ZSTD_compressCCtx(own.context, own.packed.data(), own.packed.size(),
                                                 plain.data(), plain.size(), 1);
    const std::size_t len = shard_payload_len(packed + crypto::kAeadTagLen, kDataShards);
    aead.seal(stripe, {}, Bytes(own.packed).first(packed),
              MutableBytes(own.shards).first(packed + crypto::kAeadTagLen));
    std::vector<Bytes> data;
    std::vector<MutableBytes> parity;
    for (unsigned i = 0; i < kTotalShards; ++i) {
      const MutableBytes shard = MutableBytes(own.shards).subspan(i * len, len);
      i < kDataShards ? data.emplace_back(shard) : (parity.push_back(shard), Bytes{});
    }
    coder->encode(data, parity);
  });
}

std::unique_ptr<StripeCodec> make_codec() {
  return need(StripeCodec::make(crypto::SecretKey::generate(), {.data_shards = kDataShards,
                                                                .total_shards = kTotalShards,
                                                                .stripe_size = kStripeLen,
                                                                .aead = aead_for_writing()}));
}

// Servers of this run; they end with it.
class Servers {
 public:
  Servers() = default;
  Servers(const Servers&) = delete;
  Servers& operator=(const Servers&) = delete;
  ~Servers() {
    for (const pid_t pid : pids_) ::kill(pid, SIGTERM);
    for (const pid_t pid : pids_) ::waitpid(pid, nullptr, 0);
  }
  std::string start(const std::string& program, const std::string& directory) {
    int out[2];
    if (::pipe2(out, O_CLOEXEC) != 0) std::exit(1);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    std::vector<std::string> arguments = {program,       "--data", directory, "--listen",
                                          "127.0.0.1:0", "--mode", "user"};
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    const int failed =
        ::posix_spawnp(&pid, program.c_str(), &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(out[1]);
    if (failed != 0) {
      fmt::print(stderr, "archive_bench: cannot start {}\n", program);
      std::exit(1);
    }
    pids_.push_back(pid);
    std::string line;
    char byte = 0;
    while (::read(out[0], &byte, 1) == 1 && byte != '\n') line.push_back(byte);
    ::close(out[0]);
    constexpr std::string_view kPrefix = "listening on ";
    const auto at = line.find(kPrefix);
    if (at == std::string::npos) {
      fmt::print(stderr, "archive_bench: {} said: {}\n", program, line);
      std::exit(1);
    }
    return line.substr(at + kPrefix.size());
  }

 private:
  std::vector<pid_t> pids_;
};

std::shared_ptr<const Config> make_config(const std::vector<std::string>& addresses,
                                          const std::string& meta) {
  auto config = std::make_shared<Config>();
  config->shards = {.minimal_shards = kDataShards, .expected_shards = kTotalShards};
  config->encryption.key = std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  config->meta.encryption.key = config->encryption.key;
  config->groups.resize(1);
  for (const std::string& address : addresses) {
    config->groups[0].backends.push_back(
        make_backend_config(need(zdb::BackendAddress::parse(address)), "default", Password{}));
  }
  config->meta.backends.push_back(
      make_backend_config(need(zdb::BackendAddress::parse(meta)), "meta", Password{}));
  return config;
}

double measure(Bytes file, const std::function<void()>& work) {
  const MonotonicTime start = system_clock().now();
  work();
  const Duration took = system_clock().now() - start;
  return static_cast<double>(file.size()) / 1e6 / (static_cast<double>(took.count()) / 1e9);
}

// One store that is written and read.
struct Target {
  std::string name;
  std::unique_ptr<ThreadedStore> store;
  std::optional<Manifest> manifest;
};

class Bench {
 public:
  Bench(Buffer file, std::size_t runs, std::string only, std::size_t threads)
      : file_(std::move(file)), runs_(runs), only_(std::move(only)), threads_(threads) {}

  void add_target(std::string name, std::shared_ptr<const Config> config) {
    targets_.push_back(
        {std::move(name),
         need(ThreadedStore::open(std::move(config), {}, system_clock(), system_random())),
         std::nullopt});
  }

  void run() {
    if (std::string_view("codec decode").starts_with(only_)) encode_for_decoding();
    for (std::size_t run = 0; run < runs_; ++run) {
      note("bare zstd+AEAD+RS", [&] { run_bare_loop(file_, threads_); });
      note("codec encode", [&] { encode_all(); });
      for (Target& target : targets_) {
        if (target.manifest) {
          need(target.store->store().remove(*target.manifest));
          target.manifest.reset();
        }
        note("put " + target.name, [&] { put(target); });
      }
      note("codec decode", [&] { decode_all(); });
      for (Target& target : targets_) {
        if (target.manifest) note("read " + target.name, [&] { read(target); });
      }
    }
  }

  void print(bool json) {
    nlohmann::json document;
    document["file_bytes"] = file_.size();
    document["threads"] = threads_;
    document["runs"] = runs_;
    for (const std::string& name : order_) {
      const double rate = median(name);
      const bool reads = name.starts_with("read") || name == "codec decode";
      const double base = median(reads ? "codec decode" : "bare zstd+AEAD+RS");
      const double ratio = base > 0 ? rate / base : 0;
      document["results"][name] = {{"mb_per_s", rate}, {"ratio", ratio}};
      if (!json) fmt::print("{:<24} {:8.0f} MB/s  {:5.2f}\n", name, rate, ratio);
    }
    if (json) fmt::print("{}\n", document.dump(2));
  }

 private:
  void note(const std::string& name, const std::function<void()>& work) {
    if (!name.starts_with(only_)) return;
    if (!rates_.contains(name)) order_.push_back(name);
    rates_[name].push_back(measure(file_, work));
  }
  double median(const std::string& name) {
    if (!rates_.contains(name)) return 0;
    std::vector<double> rates = rates_.at(name);
    std::ranges::sort(rates);
    return rates[rates.size() / 2];
  }

  void encode_all() {
    const auto codec = make_codec();
    std::vector<EncodedStripe> own(threads_);
    for_each_stripe(file_, threads_, [&](std::size_t thread, std::size_t stripe) {
      need(codec->encode(static_cast<std::uint32_t>(stripe), stripe + 1 == stripe_count(file_),
                         stripe_of(file_, stripe), own[thread]));
    });
  }

  void put(Target& target) {
    MemorySource source(file_);
    PutOptions options;
    system_random().fill(options.id.bytes);
    options.label = "bench";
    target.manifest = need(target.store->store().put(source, options));
  }

  void encode_for_decoding() {
    codec_ = make_codec();
    encoded_.resize(stripe_count(file_));
    for (std::size_t i = 0; i < encoded_.size(); ++i) {
      need(codec_->encode(static_cast<std::uint32_t>(i), i + 1 == encoded_.size(),
                          stripe_of(file_, i), encoded_[i]));
    }
  }

  void decode_all() {
    std::vector<Buffer> plain(threads_, Buffer(kStripeLen));
    for_each_stripe(file_, threads_, [&](std::size_t thread, std::size_t stripe) {
      std::vector<FetchedShard> shards;
      for (unsigned i = 0; i < kDataShards; ++i) shards.push_back({i, encoded_[stripe].shard(i)});
      need(codec_->decode(static_cast<std::uint32_t>(stripe), shards,
                          MutableBytes(plain[thread]).first(stripe_of(file_, stripe).size()),
                          nullptr));
    });
  }

  void read(Target& target) {
    // One reader more than CPUs, so that one may wait.
    const std::size_t readers = threads_ * 2;
    std::vector<Buffer> plain(readers, Buffer(kStripeLen));
    for_each_stripe(file_, readers, [&](std::size_t thread, std::size_t stripe) {
      const MutableBytes out = MutableBytes(plain[thread]).first(stripe_of(file_, stripe).size());
      need(target.store->store().read_stripe(*target.manifest, static_cast<std::uint32_t>(stripe),
                                             out, {}));
      if (std::memcmp(out.data(), stripe_of(file_, stripe).data(), out.size()) != 0) {
        fmt::print(stderr, "archive_bench: stripe {} reads back wrong\n", stripe);
        std::exit(1);
      }
    });
  }

  const Buffer file_;
  const std::size_t runs_;
  const std::string only_;
  const std::size_t threads_;
  std::vector<Target> targets_;
  std::unique_ptr<StripeCodec> codec_;
  std::vector<EncodedStripe> encoded_;
  std::vector<std::string> order_;
  std::map<std::string, std::vector<double>> rates_;
};

int run(int argc, char** argv) {
  std::string path;
  std::string zdb;
  std::string directory;
  std::string only;
  std::size_t runs = 5;
  std::size_t threads = std::max(1U, std::thread::hardware_concurrency());
  bool json = false;
  CLI::App app("How much of the machine's arithmetic the object store turns into stored data");
  app.add_option("FILE", path, "What to store, such as a tar of /usr/include")->required();
  app.add_option("--runs", runs, "Medians of so many")->check(CLI::PositiveNumber);
  app.add_option("--zdb", zdb, "The program qsfs-zdb; without it, embedded backends only");
  app.add_option("--dir", directory, "Where the backends are kept (default: a fresh one in /tmp)");
  app.add_option("--only", only, "Just the measurements whose name begins so: put, read, bare");
  app.add_option("--threads", threads, "Of the loops without a store (default: one per CPU)")
      ->check(CLI::PositiveNumber);
  app.add_flag("--json", json, "Answer in JSON");
  CLI11_PARSE(app, argc, argv);

  std::string pattern = (directory.empty() ? "/tmp" : directory) + "/archive_bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) {
    fmt::print(stderr, "archive_bench: cannot make a directory like {}\n", pattern);
    return 1;
  }
  {
    Bench bench(need(read_whole_file(posix_disk(), path, kFileSizeMax)), runs, only, threads);
    std::vector<std::string> addresses;
    for (unsigned i = 0; i < kTotalShards; ++i) {
      addresses.push_back(fmt::format("dir:{}/embedded{}", pattern, i));
    }
    bench.add_target("embedded", make_config(addresses, "dir:" + pattern + "/meta"));
    Servers servers;
    if (!zdb.empty()) {
      addresses.clear();
      for (unsigned i = 0; i < kTotalShards; ++i) {
        addresses.push_back(servers.start(zdb, fmt::format("{}/server{}", pattern, i)));
      }
      bench.add_target("servers", make_config(addresses, "dir:" + pattern + "/meta2"));
    }
    bench.run();
    bench.print(json);
  }
  std::error_code ignored;
  std::filesystem::remove_all(pattern, ignored);
  return 0;
}

}  // namespace
}  // namespace qsfs::zstor

int main(int argc, char** argv) { return qsfs::zstor::run(argc, argv); }
