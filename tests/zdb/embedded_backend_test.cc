// What EmbeddedBackend adds to the contract of backends: sharing, locks, passwords.
#include "zdb/embedded_backend.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <thread>

#include "base/posix_disk.h"
#include "tests/zdb/engine_fixture.h"

namespace qsfs::zdb {
namespace {

constexpr Duration kTimeout = std::chrono::seconds(1);

class EmbeddedBackendTest : public testing::Test {
 protected:
  EmbeddedBackendTest() {
    path_ = (std::filesystem::temp_directory_path() / "qsfs-embedded-XXXXXX").string();
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
  }
  ~EmbeddedBackendTest() override { std::filesystem::remove_all(path_); }

  Result<std::unique_ptr<Backend>> make(const std::string& name, const std::string& password = "",
                                        NamespaceMode mode = NamespaceMode::kUser) {
    return make_embedded_backend(
        {.address = {.kind = BackendAddress::Kind::kDirectory, .host = "", .path = path_ + "/zdb"},
         .name_space = name,
         .password = password,
         .directory_mode = mode},
        system_clock(), system_random());
  }

  std::string path_;
};

TEST_F(EmbeddedBackendTest, NamespacesOfADirectoryShareOneEngine) {
  const auto first = make("first").value();
  const auto second = make("second").value();
  EXPECT_EQ(first->server_info(kTimeout)->instance_id, second->server_info(kTimeout)->instance_id);
  ASSERT_TRUE(first->set(as_bytes("key"), as_bytes("one"), kTimeout));
  EXPECT_EQ(second->get(as_bytes("key"), kTimeout).value(), std::nullopt);
  const auto same = make("first").value();
  EXPECT_EQ(as_text(**same->get(as_bytes("key"), kTimeout)), "one");
}

TEST_F(EmbeddedBackendTest, ReopensAfterTheLastBackendWentAway) {
  std::string instance;
  {
    const auto backend = make("space").value();
    ASSERT_TRUE(backend->set(as_bytes("key"), as_bytes("value"), kTimeout));
    instance = backend->server_info(kTimeout)->instance_id;
  }
  const auto again = make("space").value();
  EXPECT_NE(again->server_info(kTimeout)->instance_id, instance);
  EXPECT_EQ(as_text(**again->get(as_bytes("key"), kTimeout)), "value");
}

TEST_F(EmbeddedBackendTest, OpensAndClosesFromManyThreads) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        const auto backend = make("space");
        ASSERT_TRUE(backend) << backend.error().message();
        const std::string key = std::to_string(t * 100 + i);
        EXPECT_TRUE((*backend)->set(as_bytes(key), as_bytes("v"), kTimeout));
      }
    });
  }
  threads.clear();
  EXPECT_EQ(make("space").value()->info(kTimeout)->entries, 20u);
}

TEST_F(EmbeddedBackendTest, AsksForThePasswordThatTheNamespaceWasMadeWith) {
  ASSERT_TRUE(make("space", "secret"));
  const auto refused = make("space", "wrong");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kAccess);
  EXPECT_EQ(refused.error().message().find("secret"), std::string::npos);
  EXPECT_TRUE(make("space", "secret").value()->info(kTimeout)->has_password);
}

TEST_F(EmbeddedBackendTest, RefusesANamespaceOfTheOtherMode) {
  ASSERT_TRUE(make("space"));
  EXPECT_EQ(make("space", "", NamespaceMode::kSequential).error().code, Errc::kInvalidArgument);
}

TEST_F(EmbeddedBackendTest, TheDefaultNamespaceTakesTheModeOfItsFirstUser) {
  const auto backend = make("default", "", NamespaceMode::kSequential).value();
  EXPECT_EQ(backend->set({}, as_bytes("zero"), kTimeout)->size(), kSequentialKeyLen);
  EXPECT_EQ(make("default", "", NamespaceMode::kUser).error().code, Errc::kInvalidArgument);
}

TEST_F(EmbeddedBackendTest, CountsItsRequests) {
  const auto backend = make("space").value();
  ASSERT_TRUE(backend->set(as_bytes("key"), as_bytes("value"), kTimeout));
  ASSERT_TRUE(backend->get(as_bytes("key"), kTimeout));
  EXPECT_FALSE(backend->set({}, as_bytes("value"), kTimeout));
  const BackendStats stats = backend->stats();
  EXPECT_EQ(stats.requests, 3u);
  EXPECT_EQ(stats.errors, 1u);
  EXPECT_EQ(stats.bytes_sent, 8u);
  EXPECT_EQ(stats.bytes_received, 5u);
}

TEST_F(EmbeddedBackendTest, RefusesADirectoryThatAnotherProcessHas) {
  const auto lock = posix_disk().create_directory(path_ + "/zdb");
  ASSERT_TRUE(lock);
  const auto held = posix_disk().lock_file(path_ + "/zdb/lock");
  ASSERT_TRUE(held);
  EXPECT_EQ(make("space").error().code, Errc::kBusy);
}

// The thread of SyncPolicy::kInterval, on a real clock and disk: it starts, works and stops.
TEST_F(EmbeddedBackendTest, TheIntervalThreadMakesWritesDurable) {
  EngineLife life;
  life.options.sync = SyncPolicy::kInterval;
  life.options.sync_interval = std::chrono::milliseconds(1);
  life.options.background_thread = true;
  life.open();
  life.must_set("key", "value");
  const auto syncs = [&] { return life.disk().calls(sim::DiskCall::kDatasync); };
  const auto before = syncs();
  life.must_set("key", "another value");
  while (syncs() == before) std::this_thread::yield();
  life.reopen();
  EXPECT_EQ(life.must_get("key"), "another value");
}

}  // namespace
}  // namespace qsfs::zdb
