# What an installation consists of, and the Debian package:
#   ./dev build && (cd build/release && cpack -G DEB)
include(GNUInstallDirs)
# Only what is packaged has to be built for it, not the tests.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY TRUE)

set(QSFS_PROGRAMS qsfs qsfs-fs qsfs-zdb)
if(TARGET qsfsd)
  list(APPEND QSFS_PROGRAMS qsfsd)
endif()
install(TARGETS ${QSFS_PROGRAMS} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# mount(8) looks for its helpers in /sbin, wherever the rest is.
install(PROGRAMS packaging/mount.fuse.qsfs DESTINATION sbin)
install(FILES packaging/qsfs@.service packaging/qsfsd.service packaging/qsfs-zdb.service
  DESTINATION lib/systemd/system)
install(FILES packaging/qsfsd.zinit.yaml README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME qsfs)
set(CPACK_PACKAGE_CONTACT "QSFS developers <qsfs@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Filesystem over erasure-coded 0-DB backends")
set(CPACK_PACKAGE_DESCRIPTION
  "Mounts a folder of unlimited size: writes go to a local log, and from there compressed, encrypted and erasure-coded
to remote 0-DB key-value stores. Has the mount (qsfs-fs), the command qsfs, the lifecycle manager qsfsd and the
0-DB server qsfs-zdb.")
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "fuse3, mount")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "nftables")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
include(CPack)
