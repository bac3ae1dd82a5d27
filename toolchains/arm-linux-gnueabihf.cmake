# 32-bit Arm Linux, hard float ABI (Armv7-A): portable kernels.
set(CMAKE_SYSTEM_PROCESSOR armv7l)
set(ACORN_CROSS_TRIPLET arm-linux-gnueabihf)
set(ACORN_CROSS_QEMU qemu-arm)
include("${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake")
