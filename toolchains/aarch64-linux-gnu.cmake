# 64-bit Arm Linux: any Armv8-A; kernels for Advanced SIMD, dot product and i8mm are chosen on the device.
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(ACORN_CROSS_TRIPLET aarch64-linux-gnu)
set(ACORN_CROSS_LINK -static-pie)
set(ACORN_CROSS_QEMU qemu-aarch64)
set(ACORN_CROSS_QEMU_ARGUMENTS -cpu max,pauth-impdef=on)
# Pages may be of 16 KiB or 64 KiB.
set(CMAKE_SHARED_LINKER_FLAGS_INIT -Wl,-z,max-page-size=65536)
include("${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake")
