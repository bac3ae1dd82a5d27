# s390x Linux, big endian: builds and runs, and refuses every model file (ACORN_ERR_UNSUPPORTED).
set(CMAKE_SYSTEM_PROCESSOR s390x)
set(ACORN_CROSS_TRIPLET s390x-linux-gnu)
set(ACORN_CROSS_QEMU qemu-s390x)
include("${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake")
