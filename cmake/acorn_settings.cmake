# Settings of every target: language, output folders, warnings, and the flags of the two worlds (runtime, compiler).

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 99)
set(CMAKE_C_STANDARD_REQUIRED ON)
if(NOT DEFINED CMAKE_POSITION_INDEPENDENT_CODE)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
endif()
# A big-endian machine builds everything and refuses every file (ACORN_ERR_UNSUPPORTED); tests that open one are left out.
if(CMAKE_C_BYTE_ORDER STREQUAL "BIG_ENDIAN")
  set(ACORN_BIG_ENDIAN ON)
endif()
# Where the toolchain file names no operating system, only the library, the ports and the ports' own tests are built.
set(ACORN_HOSTED ON)
if(CMAKE_SYSTEM_NAME STREQUAL "Generic")
  set(ACORN_HOSTED OFF)
endif()
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
  set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
  endif()
endif()

# acorn_warnings: what our own code must be free of. Errors only where a preset says so (CMAKE_COMPILE_WARNING_AS_ERROR).
add_library(acorn_warnings INTERFACE)
target_compile_options(acorn_warnings INTERFACE -Wall -Wextra -Wshadow -Wvla -Wundef)

# acorn_common_flags: no contraction of a*b+c anywhere, so that no compiler may change a result.
add_library(acorn_common_flags INTERFACE)
target_compile_options(acorn_common_flags INTERFACE -ffp-contract=off)
target_link_libraries(acorn_common_flags INTERFACE acorn_warnings)
if(ACORN_SANITIZE)
  string(REPLACE "+" "," sanitizers "${ACORN_SANITIZE}")
  target_compile_options(acorn_common_flags INTERFACE
    -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer -g
    # GCC 12 takes the sanitizers' checks of a pointer for its value, and its own intrinsics for a mistake (GCC bug 105593).
    $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overflow;-Wno-uninitialized;-Wno-maybe-uninitialized>)
  target_link_options(acorn_common_flags INTERFACE -fsanitize=${sanitizers})
endif()
target_compile_definitions(acorn_common_flags INTERFACE $<$<OR:$<CONFIG:Debug>,$<BOOL:${ACORN_SANITIZE}>>:ACORN_DEBUG_CHECKS>)

if(ACORN_COVERAGE)
  target_compile_options(acorn_common_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(acorn_common_flags INTERFACE --coverage)
endif()

# acorn_hardening: of programs and of what is linked into programs alone. The library itself asks nothing of a C library that could
# report an overrun (ACORN_STACK_PROTECTOR); sanitizers see more, and FORTIFY wants a compiler that optimises.
add_library(acorn_hardening INTERFACE)
target_link_libraries(acorn_hardening INTERFACE acorn_common_flags)
if(ACORN_HOSTED AND NOT ACORN_SANITIZE)
  target_compile_options(acorn_hardening INTERFACE
    -fstack-protector-strong $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>)
  target_link_options(acorn_hardening INTERFACE -Wl,-z,relro -Wl,-z,now)
  if(NOT CMAKE_EXE_LINKER_FLAGS MATCHES "-static")  # -static-pie says it itself
    include(CheckPIESupported)
    check_pie_supported()
  endif()
endif()

# acorn_runtime_flags: what goes into libacorn.a. Sanitizers inflate frames, so the frame limit holds without them only.
add_library(acorn_runtime_flags INTERFACE)
target_compile_options(acorn_runtime_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions;-fno-rtti;-fno-threadsafe-statics>
  -fno-math-errno -fvisibility=hidden -ffunction-sections -fdata-sections
  $<$<NOT:$<BOOL:${ACORN_SANITIZE}>>:-Wframe-larger-than=16384>)
# Arm's out-of-line atomics are libgcc's, which asks the C library for the CPU's features before main: not on every device. The
# archive has one exchange a call.
# Clang takes the flag anywhere, and warns where it means nothing.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-outline-atomics ACORN_HAVE_NO_OUTLINE_ATOMICS)
if(ACORN_HAVE_NO_OUTLINE_ATOMICS AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  target_compile_options(acorn_runtime_flags INTERFACE -mno-outline-atomics)
endif()
if(ACORN_STACK_PROTECTOR)
  target_compile_options(acorn_runtime_flags INTERFACE -fstack-protector-strong)
endif()
if(ACORN_STRIP_STRINGS)
  target_compile_definitions(acorn_runtime_flags INTERFACE ACORN_STRIP_STRINGS)
endif()
target_link_libraries(acorn_runtime_flags INTERFACE acorn_common_flags)

# acorn_compiler_flags: acornc and what is linked with its parts. Eigen's types change layout with the instruction set,
# so every target that includes Eigen must use this.
add_library(acorn_compiler_flags INTERFACE)
target_compile_options(acorn_compiler_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:-O3> $<$<BOOL:${ACORN_COMPILER_NATIVE}>:-march=native>)
target_compile_definitions(acorn_compiler_flags INTERFACE EIGEN_MPL2_ONLY)
target_link_libraries(acorn_compiler_flags INTERFACE acorn_hardening)
