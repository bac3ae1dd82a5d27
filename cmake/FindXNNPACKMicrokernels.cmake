# XNNPACK's microkernels as a static archive, libmicrokernels-prod.a. No header is needed: runtime/kernels/xnnpack/microkernels.h
# declares what is called, and the archive must have all of it.
#
#   ACORN_XNNPACK     a folder to search (an XNNPACK build, or a package's root or library folder); OFF: none;
#                     empty: what toolchains/setup.sh unpacked, then the system
#   ACORN_HAVE_XNNPACK, and the target acorn_xnnpack, are the result
set(ACORN_HAVE_XNNPACK OFF)
set(ACORN_XNNPACK_SYMBOLS_amd64
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c8__avx512vnni_prfm
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_10x16c8__avx512vnni_prfm
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c8__avxvnni_prfm
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_5x8c8__avxvnni_prfm
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c8__avx2
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x8c8__avx2
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__avx512vnnigfni_prfm
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__avx512vnni_prfm
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_8x16c8__avx512vnni_prfm
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x8c8__avx2_madd_prfm
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x8c8__avx2_madd_prfm
  xnn_x8_lut_ukernel__avx512skx_vpshufb_u64
  xnn_x8_lut_ukernel__avx2_u128)
set(ACORN_XNNPACK_SYMBOLS_arm64
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c8__neoni8mm
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x16c8__neoni8mm
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c4__neondot
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x16c4__asm_aarch64_neondot_ld128
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c2s4__neon_mlal
  xnn_qd8_f32_qc8w_gemm_minmax_ukernel_2x8c2s4__neon_mlal
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__neoni8mm
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x16c8__neoni8mm
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c4__neondot
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x16c4__neondot
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16__neon_mlal_lane
  xnn_qd8_f32_qc4w_gemm_minmax_ukernel_6x16__neon_mlal_lane
  xnn_x8_lut_ukernel__aarch64_neon_tbx128x4_u64)
set(symbols ${ACORN_XNNPACK_SYMBOLS_${ACORN_DEBIAN_ARCH}})

if(ACORN_XNNPACK STREQUAL "OFF" OR NOT symbols)
  message(STATUS "XNNPACK's microkernels: not used")
  return()
endif()

unset(ACORN_XNNPACK_ARCHIVE CACHE)
if(ACORN_XNNPACK)
  find_library(ACORN_XNNPACK_ARCHIVE libmicrokernels-prod.a
    PATHS "${ACORN_XNNPACK}" PATH_SUFFIXES lib lib/${ACORN_DEBIAN_TRIPLET} usr/lib/${ACORN_DEBIAN_TRIPLET} NO_DEFAULT_PATH)
  if(NOT ACORN_XNNPACK_ARCHIVE)
    message(FATAL_ERROR "ACORN_XNNPACK=${ACORN_XNNPACK}: no libmicrokernels-prod.a in it")
  endif()
else()
  find_library(ACORN_XNNPACK_ARCHIVE libmicrokernels-prod.a
    HINTS "${ACORN_DEPS_DIR}/xnnpack/${ACORN_DEBIAN_ARCH}/usr/lib/${ACORN_DEBIAN_TRIPLET}")
  if(NOT ACORN_XNNPACK_ARCHIVE)
    message(STATUS "XNNPACK's microkernels: not found (bash toolchains/setup.sh gets them); our own kernels serve alone")
    return()
  endif()
endif()

# Another version may lack a kernel or have it under another name: better known now than at the first link.
set(source "")
foreach(symbol IN LISTS symbols)
  string(APPEND source "void ${symbol}(void);\n")
endforeach()
string(APPEND source "void (*const volatile kernels[])(void) = {\n")
foreach(symbol IN LISTS symbols)
  string(APPEND source "  ${symbol},\n")
endforeach()
string(APPEND source "};\nint main(void) { return kernels[0] == 0; }\n")
file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/xnnpack_check.c" "${source}")
# Without an operating system there is no program to link yet: only the names are looked up.
set(options "")
set(target_type ${CMAKE_TRY_COMPILE_TARGET_TYPE})
if(NOT ACORN_HOSTED)
  set(CMAKE_TRY_COMPILE_TARGET_TYPE EXECUTABLE)
  list(TRANSFORM symbols REPLACE "^(.+)$" "-Wl,--require-defined=\\1" OUTPUT_VARIABLE options)
  list(PREPEND options -r)
endif()
try_compile(ACORN_XNNPACK_COMPLETE "${CMAKE_CURRENT_BINARY_DIR}/xnnpack_check" "${CMAKE_CURRENT_BINARY_DIR}/xnnpack_check.c"
  LINK_OPTIONS ${options} LINK_LIBRARIES "${ACORN_XNNPACK_ARCHIVE}" OUTPUT_VARIABLE output)
set(CMAKE_TRY_COMPILE_TARGET_TYPE ${target_type})
if(NOT ACORN_XNNPACK_COMPLETE)
  if(ACORN_XNNPACK)
    message(FATAL_ERROR "${ACORN_XNNPACK_ARCHIVE} lacks microkernels that Acorn calls:\n${output}")
  endif()
  message(STATUS "XNNPACK's microkernels: ${ACORN_XNNPACK_ARCHIVE} is another version; our own kernels serve alone")
  return()
endif()

message(STATUS "XNNPACK's microkernels: ${ACORN_XNNPACK_ARCHIVE}")
set(ACORN_HAVE_XNNPACK ON)
if(NOT TARGET acorn_xnnpack)
  add_library(acorn_xnnpack STATIC IMPORTED GLOBAL)
  set_target_properties(acorn_xnnpack PROPERTIES IMPORTED_LOCATION "${ACORN_XNNPACK_ARCHIVE}")
endif()
