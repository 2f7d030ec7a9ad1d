// The commands that talk to a running volume, against a server that answers as one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/http.h"
#include "base/mutex.h"
#include "base/posix_disk.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/mount.h"
#include "cli/progress.h"
#include "cli/status_text.h"
#include "cli/target.h"
#include "cli/units.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

std::string mount_line(const std::string& mount_point, const std::string& data_dir,
                       const std::string& root = "/") {
  return "36 35 0:52 " + root + " " + mount_point +
         " rw,nosuid shared:7 - fuse.qsfs qsfs:" + data_dir + " rw,user_id=0\n";
}

json healthy_status() {
  return {{"verdict", "ok"},
          {"reasons", json::array()},
          {"volume",
           {{"name", "photos"},
            {"uuid", "u-u"},
            {"mountpoint", "/mnt/photos"},
            {"data_dir", "/var/photos"},
            {"config", "/etc/it's.toml"},
            {"used_bytes", 3 << 20},
            {"inodes", 12}}},
          {"archive", {{"behind_bytes", 0}, {"behind_seconds", 0}, {"segments_queued", 0}}},
          {"cache", {{"limit_bytes", 0}, {"used_bytes", 1024}, {"unarchived_bytes", 0}}},
          {"objects", {{"total", 5}, {"healthy", 5}, {"degraded", 0}, {"lost", 0}}},
          {"backends",
           {{{"address", "h:1"},
             {"namespace", "m"},
             {"role", "meta"},
             {"group", 0},
             {"state", "healthy"},
             {"latency_ms", 1.25},
             {"used_bytes", nullptr},
             {"free_bytes", nullptr}},
            {{"address", "h:2"},
             {"namespace", "d"},
             {"role", "data"},
             {"group", 0},
             {"state", "healthy"},
             {"latency_ms", 2},
             {"used_bytes", 1 << 20},
             {"free_bytes", 1 << 30}}}},
          {"pid", 1},
          {"uptime_seconds", 3700}};
}

TEST(MountinfoTest, FindsVolumesAmongOtherMounts) {
  const auto mounts = parse_mountinfo(
      "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
      "26 25 0:30 / /mnt/other rw - fuse.sshfs qsfs:/no rw\n" +
      mount_line("/mnt/a", "/data/a") + "garbage\n\n27 25 0:31 / /x rw -\n" +
      "40 25 0:52 / /mnt/b rw - fuse.qsfs qsfs:/data/b rw\n");
  ASSERT_EQ(mounts.size(), 2U);
  EXPECT_EQ(mounts[0].mount_point, "/mnt/a");
  EXPECT_EQ(mounts[0].data_dir, "/data/a");
  EXPECT_EQ(mounts[1].mount_point, "/mnt/b");
}

TEST(MountinfoTest, DecodesEscapes) {
  const auto mounts = parse_mountinfo(mount_line(R"(/mnt/a\040b\134\011)", R"(/d\012\09)"));
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].mount_point, "/mnt/a b\\\t");
  EXPECT_EQ(mounts[0].data_dir, "/d\n\\09");
}

TEST(UnitsTest, ShowsThreeDigitsAtMost) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(10 * 1024), "10 KiB");
  EXPECT_EQ(human_bytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(human_bytes(UINT64_MAX), "16 EiB");
  EXPECT_EQ(human_seconds(59), "59 s");
  EXPECT_EQ(human_seconds(200), "3 min 20 s");
  EXPECT_EQ(human_seconds(7500), "2 h 5 min");
  EXPECT_EQ(human_seconds(90000), "1 d 1 h");
  EXPECT_EQ(printable("a\x1b[31m\nb"), "a?[31m?b");
}

TEST(StatusTextTest, SaysTheVerdictFirst) {
  const std::string text = status_text(healthy_status());
  EXPECT_THAT(text, StartsWith("ok: "));
  EXPECT_THAT(text, AllOf(HasSubstr("photos"), HasSubstr("up 1 h 1 min"), HasSubstr("no limit"),
                          HasSubstr("the backends hold everything"), HasSubstr("nothing to do")));
  EXPECT_LT(text.find("group 0"), text.find("metadata"));
  EXPECT_THAT(text, HasSubstr("h:2/d  healthy          2.0 ms   1.0 MiB used   1.0 GiB free\n"));
}

TEST(StatusTextTest, NamesTheNextCommand) {
  json document = healthy_status();
  document["archive"]["behind_bytes"] = 4096;
  EXPECT_THAT(status_text(document), HasSubstr("Next: qsfs sync --remote /mnt/photos,"));

  document["verdict"] = "degraded";
  document["reasons"] = {"one is gone"};
  document["backends"][1]["state"] = "unreachable";
  document["backends"][1]["last_error"] = "connection refused\x1b";
  document["backends"][1]["since"] = "2026-01-01T00:00:00Z";
  const std::string text = status_text(document);
  EXPECT_THAT(text, StartsWith("degraded: "));
  EXPECT_THAT(text, AllOf(HasSubstr("  - one is gone\n"), HasSubstr("since 2026-01-01"),
                          HasSubstr("connection refused?"),
                          HasSubstr("qsfs backend test --config '/etc/it'\\''s.toml'")));
}

TEST(StatusTextTest, TakesAnyDocument) {
  const json good = healthy_status();
  for (const json& odd : {json(nullptr), json(-1), json("x"), json::array({1}), json::object()}) {
    EXPECT_FALSE(status_text(odd).empty());
    EXPECT_FALSE(info_text("/x", odd).empty());
    for (const auto& [key, value] : good.items()) {
      json document = good;
      document[key] = odd;
      EXPECT_FALSE(status_text(document).empty()) << key;
      if (!value.is_object()) continue;
      for (const auto& [inner, unused] : value.items()) {
        document = good;
        document[key][inner] = odd;
        EXPECT_FALSE(status_text(document).empty()) << key << "." << inner;
      }
    }
  }
}

TEST(StatsJsonTest, KeepsLabelsAndNumbers) {
  const json document = json::parse(
      stats_json("# HELP a b\na 12\nb{x=\"1 }\\\" 2\",y=\"\"} 0.5 1700000000\nc NaN\nd 1e3\n"
                 "broken\n"));
  EXPECT_EQ(document,
            json({{"a", 12}, {"b{x=\"1 }\\\" 2\",y=\"\"}", 0.5}, {"c", "NaN"}, {"d", 1000.0}}));
}

// Stands still unless told.
class HandClock final : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  WallTime wall() const override { return now_; }
  void sleep_for(Duration duration) override { now_ += duration; }

 private:
  MonotonicTime now_{};
};

TEST(ProgressTest, WritesALineEachFiveSecondsAfterTheFirst) {
  HandClock clock;
  std::ostringstream out;
  Progress progress({.verb = "archived", .style = ProgressStyle::kLines}, out, clock);
  progress.update(0, 100 << 20, "");
  EXPECT_THAT(out.str(), IsEmpty());
  for (unsigned second = 1; second <= 11; ++second) {
    clock.sleep_for(std::chrono::seconds(1));
    progress.update(std::uint64_t{second} << 20, 100 << 20, second == 11 ? "why\n" : "");
  }
  EXPECT_EQ(out.str(),
            "1.0 MiB of 100 MiB archived, 1.0 MiB/s, 1 min 40 s left\n"
            "6.0 MiB of 100 MiB archived, 1.0 MiB/s, 1 min 35 s left\n"
            "11 MiB of 100 MiB archived, 1.0 MiB/s, 1 min 30 s left; why?\n");
}

TEST(ProgressTest, DrawsABarThatFitsAndGoesAway) {
  HandClock clock;
  std::ostringstream out;
  {
    Progress progress({.verb = "archived", .style = ProgressStyle::kBar, .columns = 40}, out,
                      clock);
    clock.sleep_for(std::chrono::seconds(2));
    progress.update(50, 100, "");
    EXPECT_EQ(out.str(), "\r\x1b[K[############............]  50 %  50 B ");
  }
  EXPECT_THAT(out.str(), testing::EndsWith("\r\x1b[K"));
}

TEST(ProgressTest, SaysNothingWhenSilentOrQuick) {
  HandClock clock;
  std::ostringstream out;
  Progress silent({.verb = "x", .style = ProgressStyle::kSilent}, out, clock);
  Progress quick({.verb = "x", .style = ProgressStyle::kBar}, out, clock);
  quick.update(1, 2, "");
  clock.sleep_for(std::chrono::seconds(9));
  silent.update(1, 2, "");
  EXPECT_THAT(out.str(), IsEmpty());
}

TEST(MountCommandTest, PassesEverythingOn) {
  EXPECT_THAT(qsfs_fs_command_line({.config_path = "/c", .mountpoint = "-m"}),
              ElementsAre("qsfs-fs", "--config", "/c", "--", "-m"));
  EXPECT_THAT(qsfs_fs_command_line({.config_path = "/c",
                                    .data_dir = "/d",
                                    .mountpoint = "/m",
                                    .log_level = "debug",
                                    .log_file = "/l",
                                    .options = {"a,b", "c"},
                                    .foreground = true,
                                    .read_only = true,
                                    .recover = true,
                                    .strict = true}),
              ElementsAre("qsfs-fs", "--config", "/c", "--data-dir", "/d", "--foreground",
                          "--read-only", "--recover", "--strict", "--log-level", "debug",
                          "--log-file", "/l", "-o", "a,b", "-o", "c", "--", "/m"));
  EXPECT_THAT(
      qsfs_fs_command_line(
          {.config_path = "/c", .mountpoint = "/m", .receipt = "1:ab", .recover = true}),
      ElementsAre("qsfs-fs", "--config", "/c", "--recover", "--receipt", "1:ab", "--", "/m"));
}

TEST(MountCommandTest, ARebuildMountsNothing) {
  EXPECT_THAT(qsfs_fs_command_line({.config_path = "/c", .rebuild_manifests = true, .json = true}),
              ElementsAre("qsfs-fs", "--config", "/c", "--rebuild-manifests", "--json"));
}

TEST(EncodePercentTest, KeepsPathsReadable) {
  EXPECT_EQ(encode_percent("/a b+%?&\xff-._~"), "/a%20b%2B%25%3F%26%FF-._~");
}

// A volume whose control socket is served by this process.
class ClientTest : public testing::Test {
 protected:
  struct Canned {
    int status = 200;
    std::string body;
    std::vector<std::string> lines;  // Set: streamed instead.
  };

  ClientTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qsfs-client-XXXXXX").string();
    directory_ = std::filesystem::canonical(mkdtemp(pattern.data())).string();
    data_dir_ = directory_ + "/data";
    mount_point_ = directory_ + "/mnt";
    mountinfo_ = directory_ + "/mountinfo";
    std::filesystem::create_directory(data_dir_);
    std::filesystem::create_directory(mount_point_);
    write_file(mountinfo_, mount_line(mount_point_, data_dir_));
  }
  ~ClientTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  static void write_file(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  void serve(std::map<std::string, Canned> routes, const std::string& socket = "") {
    auto server = HttpServer::start(
        {.address = {.unix_path = socket.empty() ? data_dir_ + "/control.sock" : socket},
         .thread_name = "fake"},
        [this, routes = std::move(routes)](const HttpRequest& request, HttpReply& reply) {
          const std::string route = request.method + " " + request.path;
          {
            MutexLock lock(mu_);
            requests_.push_back(request);
          }
          const auto found = routes.find(route);
          if (found == routes.end()) return reply.send(404, kHttpJson, R"({"error":"no route"})");
          if (on_request_) on_request_(route);
          for (const std::string& line : found->second.lines) reply.send_piece(line + "\n");
          if (found->second.lines.empty())
            reply.send(found->second.status, kHttpJson, found->second.body);
        });
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }

  int qsfs(const std::vector<std::string>& arguments) {
    std::vector<const char*> argv{"qsfs"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    out_.str("");
    err_.str("");
    Session session{.out = out_,
                    .err = err_,
                    .disk = posix_disk(),
                    .random = random_,
                    .mountinfo_path = mountinfo_};
    return run(static_cast<int>(argv.size()), argv.data(), session);
  }

  HttpRequest last_request() {
    MutexLock lock(mu_);
    return requests_.empty() ? HttpRequest{} : requests_.back();
  }

  std::string directory_;
  std::string data_dir_;
  std::string mount_point_;
  std::string mountinfo_;
  std::ostringstream out_;
  std::ostringstream err_;
  SeededRandom random_{1};
  std::function<void(const std::string&)> on_request_;
  Mutex mu_;
  std::vector<HttpRequest> requests_ QSFS_GUARDED_BY(mu_);
  std::unique_ptr<HttpServer> server_;
};

TEST_F(ClientTest, StatusTakesEveryKindOfTarget) {
  const std::string config = directory_ + "/zstor.toml";
  ASSERT_EQ(qsfs({"init", "--config", config, "--data-dir", data_dir_, "--local", "/x"}), 0);
  std::filesystem::create_directory_symlink(directory_, directory_ + "/link");
  serve({{"GET /status", {.body = healthy_status().dump()}}});
  for (const std::string& target :
       {mount_point_, mount_point_ + "/", data_dir_, config, directory_ + "/link/mnt",
        directory_ + "/link/data", directory_ + "/x/../mnt/."}) {
    EXPECT_EQ(qsfs({"status", target}), 0) << target << " " << err_.str();
    EXPECT_THAT(out_.str(), StartsWith("ok: ")) << target;
  }
}

TEST_F(ClientTest, SocketElsewhereIsFoundByControlPath) {
  const std::string socket = directory_ + "/other.sock";
  write_file(data_dir_ + "/control.path", socket + "\n");
  serve({{"GET /status", {.body = healthy_status().dump()}}}, socket);
  EXPECT_EQ(qsfs({"status", mount_point_}), 0) << err_.str();
  // Of an earlier mount: the default socket is tried as well.
  server_.reset();
  serve({{"GET /status", {.body = healthy_status().dump()}}});
  EXPECT_EQ(qsfs({"status", mount_point_}), 0) << err_.str();
}

TEST_F(ClientTest, StatusOfAnythingButOkIsThree) {
  for (const std::string verdict : {"degraded", "unsafe", "readonly", "failed"}) {
    json document = healthy_status();
    document["verdict"] = verdict;
    serve({{"GET /status", {.body = document.dump()}}});
    EXPECT_EQ(qsfs({"status", data_dir_}), 3);
    EXPECT_THAT(out_.str(), StartsWith(verdict + ": "));
    EXPECT_EQ(qsfs({"status", data_dir_, "--json"}), 3);
    EXPECT_EQ(out_.str(), document.dump() + "\n");
    server_.reset();
  }
}

TEST_F(ClientTest, NothingRunningIsOneLine) {
  EXPECT_EQ(qsfs({"status", mount_point_}), 1);
  EXPECT_THAT(err_.str(), AllOf(HasSubstr("does not answer"), HasSubstr("qsfs umount")));
  write_file(mountinfo_, "");
  for (const std::string& target : {mount_point_, data_dir_, directory_ + "/absent"}) {
    for (const char* command : {"status", "sync", "evict", "reload", "stats", "umount"}) {
      EXPECT_EQ(qsfs({command, target}), 1) << command << " " << target;
      const std::string said = err_.str();
      EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
      EXPECT_THAT(out_.str(), IsEmpty());
    }
  }
  EXPECT_EQ(qsfs({"info", mount_point_ + "/x"}), 2);
}

TEST_F(ClientTest, ADirectoryInsideOfAMountIsNoTarget) {
  std::filesystem::create_directory(mount_point_ + "/sub");
  EXPECT_EQ(qsfs({"status", mount_point_ + "/sub"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("mounted at " + mount_point_));
}

TEST_F(ClientTest, SyncLocalAndRemote) {
  const std::string progress = json{{"behind_bytes", 9}, {"bytes_archived", 1}}.dump();
  serve({{"POST /sync", {.body = R"({"synced":"local"})"}}});
  EXPECT_EQ(qsfs({"sync", data_dir_}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("local disk"));
  server_.reset();
  serve({{"POST /sync", {.lines = {progress, "no json", R"({"synced":"remote"})"}}}});
  EXPECT_EQ(qsfs({"sync", "--remote", data_dir_}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("backends"));
  EXPECT_TRUE(last_request().query.contains("remote"));
  EXPECT_EQ(qsfs({"sync", "--remote", "--json", data_dir_}), 0);
  EXPECT_EQ(json::parse(out_.str()), json({{"synced", "remote"}}));
}

TEST_F(ClientTest, SyncThatFailsIsOne) {
  serve({{"POST /sync", {.lines = {R"({"error":"fenced: read-only"})"}}}});
  EXPECT_EQ(qsfs({"sync", "--remote", data_dir_}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("fenced: read-only"));
  EXPECT_THAT(out_.str(), IsEmpty());
  server_.reset();
  serve({{"POST /sync", {.lines = {R"({"behind_bytes":5})"}}}});
  EXPECT_EQ(qsfs({"sync", "--remote", data_dir_}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("ended before all was archived"));
  server_.reset();
  serve({{"POST /sync", {.status = 500, .body = R"({"error":"disk: input/output error"})"}}});
  EXPECT_EQ(qsfs({"sync", data_dir_}), 1);
  EXPECT_EQ(err_.str(), "qsfs: disk: input/output error\n");
}

TEST_F(ClientTest, InterruptedSyncSaysThatNothingIsLost) {
  // The server is this process; the child that is interrupted only calls.
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  pid_t child = -1;
  Mutex started;
  on_request_ = [&](const std::string&) {
    // Only now is the child surely within its wait.
    const MutexLock lock(started);
    ::kill(child, SIGINT);
  };
  serve({{"POST /sync", {.lines = {R"({"behind_bytes":5})"}}}});
  {
    const MutexLock lock(started);
    child = ::fork();
    if (child == 0) {
      constexpr int kNotInterrupted = 50;
      ::dup2(pipe[1], STDERR_FILENO);
      ::_exit(kNotInterrupted + qsfs({"sync", "--remote", data_dir_}));
    }
  }
  ::close(pipe[1]);
  std::string said;
  std::array<char, 256> buffer{};
  for (ssize_t got = 0; (got = ::read(pipe[0], buffer.data(), buffer.size())) > 0;) {
    said.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(pipe[0]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(said, HasSubstr("everything stays queued"));
}

TEST_F(ClientTest, EvictSendsPathsFromTheRootOfTheVolume) {
  serve({{"POST /evict",
          {.body = R"({"evicted_bytes":2048,"used_bytes":1024,"unarchived_bytes":512})"}}});
  EXPECT_EQ(qsfs({"evict", mount_point_}), 0);
  EXPECT_EQ(out_.str(),
            "Freed 2.0 KiB; 1.0 KiB stay on this disk, 512 B of that not archived yet.\n");
  EXPECT_THAT(last_request().body, IsEmpty());
  EXPECT_EQ(qsfs({"evict", data_dir_, mount_point_ + "/a b", "/c/../d", "e/f", mount_point_}), 0);
  EXPECT_EQ(json::parse(last_request().body), json({{"paths", {"//a b", "//d", "//e/f", "//"}}}));
}

TEST_F(ClientTest, RefusalsOfTheVolumeArePassedOn) {
  serve({{"POST /evict", {.status = 404, .body = R"({"error":"/x: not found"})"}},
         {"POST /reload", {.status = 400, .body = R"({"error":"cannot change"})"}}});
  EXPECT_EQ(qsfs({"evict", data_dir_, "/x"}), 1);
  EXPECT_EQ(err_.str(), "qsfs: /x: not found\n");
  EXPECT_EQ(qsfs({"reload", data_dir_}), 2);
  EXPECT_EQ(err_.str(), "qsfs: cannot change\n");
}

TEST_F(ClientTest, StatsAndReloadAnswerInBothForms) {
  serve(
      {{"GET /stats", {.body = "qsfs_a 1\n"}}, {"POST /reload", {.body = R"({"reloaded":"/c"})"}}});
  EXPECT_EQ(qsfs({"stats", data_dir_}), 0);
  EXPECT_EQ(out_.str(), "qsfs_a 1\n");
  EXPECT_EQ(qsfs({"stats", "--json", data_dir_}), 0);
  EXPECT_EQ(json::parse(out_.str()), json({{"qsfs_a", 1}}));
  EXPECT_EQ(qsfs({"reload", "--json", data_dir_}), 0);
  EXPECT_EQ(out_.str(), "{\"reloaded\":\"/c\"}\n");
}

TEST_F(ClientTest, InfoNamesThePathFromTheRootOfTheVolume) {
  serve(
      {{"GET /info", {.body = R"({"inode":7,"size":9,"allocated_bytes":9,"extent_count":1,"extents":
                   [{"offset":0,"length":9,"segment":3,"position":1,"archived":true,
                     "resident":false}]})"}}});
  std::filesystem::create_directory(mount_point_ + "/d");
  EXPECT_EQ(qsfs({"info", mount_point_ + "/d/a b&c"}), 0) << err_.str();
  EXPECT_EQ(last_request().query["path"], "//d/a b&c");
  EXPECT_THAT(out_.str(), AllOf(StartsWith("/d/a b&c\n"), HasSubstr("yes       no")));
  // Through a bind mount of a part of the volume.
  write_file(mountinfo_, mount_line(mount_point_, data_dir_, "/part"));
  EXPECT_EQ(qsfs({"info", mount_point_ + "/d"}), 0);
  EXPECT_EQ(last_request().query["path"], "//part/d");
  EXPECT_EQ(qsfs({"info", mount_point_}), 0);
  EXPECT_EQ(last_request().query["path"], "//part");
  EXPECT_EQ(qsfs({"info", directory_ + "/mnt2"}), 2);
}

// A child that stands for the volume's process: it ends when asked.
class Volume {
 public:
  Volume() {
    EXPECT_EQ(::pipe(pipe_.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(pipe_[1]);
      char byte = 0;
      // Until the other end is closed.
      while (::read(pipe_[0], &byte, 1) > 0) continue;
      ::_exit(0);
    }
    ::close(pipe_[0]);
  }
  ~Volume() {
    end();
    ::waitpid(pid_, nullptr, 0);
  }
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;
  void end() {
    if (pipe_[1] >= 0) ::close(pipe_[1]);
    pipe_[1] = -1;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  std::array<int, 2> pipe_{-1, -1};
  pid_t pid_ = -1;
};

class UmountTest : public ClientTest {
 protected:
  std::string status_of(pid_t pid) {
    json document = healthy_status();
    document["pid"] = pid;
    document["volume"]["mountpoint"] = mount_point_;
    return document.dump();
  }
  std::vector<std::string> routes() {
    MutexLock lock(mu_);
    std::vector<std::string> all;
    for (const HttpRequest& request : requests_) all.push_back(request.path);
    return all;
  }
};

TEST_F(UmountTest, WaitsForTheProcess) {
  Volume volume;
  on_request_ = [&](const std::string& route) {
    if (route != "POST /stop") return;
    write_file(mountinfo_, "");
    volume.end();
  };
  serve({{"GET /status", {.body = status_of(volume.pid())}},
         {"POST /sync", {.lines = {R"({"synced":"remote"})"}}},
         {"POST /stop", {.body = R"({"stopping":true})"}}});
  EXPECT_EQ(qsfs({"umount", "--flush", mount_point_}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "Unmounted " + mount_point_ + ".\n");
  EXPECT_THAT(routes(), ElementsAre("/status", "/sync", "/stop"));
  siginfo_t info{};
  EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(volume.pid()), &info, WEXITED | WNOWAIT | WNOHANG),
            0);
  EXPECT_EQ(info.si_pid, volume.pid()) << "the process still runs";
}

TEST_F(UmountTest, FlushThatFailsLeavesItMounted) {
  Volume volume;
  serve({{"GET /status", {.body = status_of(volume.pid())}},
         {"POST /sync", {.lines = {R"({"error":"fenced"})"}}},
         {"POST /stop", {.body = "{}"}}});
  EXPECT_EQ(qsfs({"umount", "--flush", data_dir_}), 1);
  EXPECT_THAT(routes(), ElementsAre("/status", "/sync"));
}

TEST_F(UmountTest, StatusWithoutAProcessIsRefused) {
  serve({{"GET /status", {.body = "{}"}}, {"POST /stop", {.body = "{}"}}});
  EXPECT_EQ(qsfs({"umount", data_dir_}), 1);
  EXPECT_THAT(routes(), ElementsAre("/status"));
}

TEST_F(UmountTest, FlushWithoutAProcessIsRefused) {
  EXPECT_EQ(qsfs({"umount", "--flush", mount_point_}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("does not answer"));
}

}  // namespace
}  // namespace qsfs::cli
