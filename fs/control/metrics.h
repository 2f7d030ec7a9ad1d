// Metrics in Prometheus' text format. zstor's names are kept where the meaning is the same; ours
// begin with qsfs_.
#pragma once

#include <string>

#include "fs/fuse/edge.h"
#include "fs/service/volume_service.h"

namespace qsfs::fs {

std::string metrics_text(VolumeService& service, Edge& edge);

}  // namespace qsfs::fs
