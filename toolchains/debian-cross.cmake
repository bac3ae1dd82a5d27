# What the Linux toolchain files share: Debian's cross compilers, static programs, and QEMU to run them.
#   set(ACORN_CROSS_TRIPLET aarch64-linux-gnu), set(ACORN_CROSS_QEMU qemu-aarch64), then include this.
# Programs are static: one file to copy to a device, whatever C library it has; position-independent where Debian's C library has
# the start files of such (rcrt1.o: on 64-bit Arm): set(ACORN_CROSS_LINK -static-pie).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_C_COMPILER ${ACORN_CROSS_TRIPLET}-gcc)
set(CMAKE_CXX_COMPILER ${ACORN_CROSS_TRIPLET}-g++)
if(NOT ACORN_CROSS_LINK)
  set(ACORN_CROSS_LINK -static)
endif()
set(CMAKE_EXE_LINKER_FLAGS_INIT ${ACORN_CROSS_LINK})

# Libraries and headers of the machine that builds are not for the device. A project that uses libraries for the device names
# their folder: -DCMAKE_FIND_ROOT_PATH=PREFIX.
list(APPEND CMAKE_FIND_ROOT_PATH /usr/${ACORN_CROSS_TRIPLET})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(ACORN_QEMU NAMES ${ACORN_CROSS_QEMU} ${ACORN_CROSS_QEMU}-static)
if(ACORN_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${ACORN_QEMU} ${ACORN_CROSS_QEMU_ARGUMENTS})
endif()
