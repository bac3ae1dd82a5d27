# 32-bit Arm Linux, hard float ABI (Armv7-A): portable kernels.
set(CMAKE_SYSTEM_PROCESSOR armv7l)
set(ACORN_CROSS_TRIPLET arm-linux-gnueabihf)
set(ACORN_CROSS_QEMU qemu-arm)
# GCC notes at every std::vector that an ABI of its own changed in version 7.
set(CMAKE_CXX_FLAGS_INIT -Wno-psabi)
include("${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake")
