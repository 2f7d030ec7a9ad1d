// libfuse's low-level API, at the version that this project is written for.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
