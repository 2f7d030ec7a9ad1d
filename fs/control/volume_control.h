// VolumeControl: the control socket and the metrics of a running volume.
//
// GET /status /stats /metrics /info, POST /sync /evict /reload /drain /repair /scrub
// /check /stop. docs/control-socket.md
// describes them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/http.h"
#include "base/result.h"
#include "fs/control/status_json.h"
#include "fs/fuse/edge.h"
#include "fs/service/volume_service.h"
#include "zstor/config.h"

namespace qsfs::fs {

struct ControlOptions {
  std::string data_dir;
  std::string mountpoint;
  std::string config_path;
  std::function<void()> stop;  // Asks the process to end.
};

// Thread-safe. Borrows the service and the edge.
class VolumeControl {
 public:
  // Listens on `socket` of the configuration, else <data dir>/control.sock; and for metrics where
  // the configuration says.
  static Result<std::unique_ptr<VolumeControl>> start(const ControlOptions& options,
                                                      const zstor::Config& config,
                                                      VolumeService& service, Edge& edge);
  // Reads the configuration again and applies what can change while mounted. On an error nothing
  // has changed.
  Status reload();

 private:
  VolumeControl(ControlOptions options, VolumeService& service, Edge& edge);
  Status check_dropped_keys(const zstor::Config& wanted);
  void handle(const HttpRequest& request, HttpReply& reply);
  void handle_sync(const HttpRequest& request, HttpReply& reply, bool remote);
  void handle_evict(const HttpRequest& request, HttpReply& reply);
  void handle_repair(const HttpRequest& request, HttpReply& reply);
  void handle_scrub(const HttpRequest& request, HttpReply& reply);
  void handle_check(const HttpRequest& request, HttpReply& reply);
  // Sends how the healer stands until `is_done`; false: the peer has gone.
  bool wait_for_healer(HttpReply& reply, const std::function<bool()>& is_done);
  void handle_info(const HttpRequest& request, HttpReply& reply);
  Result<InodeNumber> resolve(const std::string& path);
  Result<std::vector<SegmentId>> segments_of(const std::string& path);

  const ControlOptions options_;
  VolumeService& service_;
  Edge& edge_;
  StatusContext context_;
  std::unique_ptr<HttpServer> control_;
  std::unique_ptr<HttpServer> metrics_;
};

}  // namespace qsfs::fs
