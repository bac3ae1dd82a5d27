# 64-bit RISC-V Linux: portable kernels.
set(CMAKE_SYSTEM_PROCESSOR riscv64)
set(ACORN_CROSS_TRIPLET riscv64-linux-gnu)
set(ACORN_CROSS_QEMU qemu-riscv64)
include("${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake")
