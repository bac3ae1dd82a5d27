# 64-bit Arm Android, through the NDK's own toolchain file (r26 or later; ANDROID_NDK or ANDROID_NDK_ROOT names the NDK).
#
# Untested: no NDK was at hand. What the POSIX port calls was compared with bionic's headers by reading.
#
# API level 21 (Android 5) is the first with 64-bit Arm, and nothing that the library or the port calls is newer:
# sched_getaffinity is of 12, getauxval of 18, mmap, madvise, clock_gettime and POSIX threads are older. What bionic lacks
# (pthread_setaffinity_np, robust process-shared locks) is not used.
# Segments start at multiples of 16 KiB, since devices with Android 15 may have pages of that size; NDKs before r28 do not do
# so by themselves.
if(NOT ANDROID_NDK)
  foreach(name IN ITEMS ANDROID_NDK ANDROID_NDK_ROOT)
    if(NOT ANDROID_NDK AND DEFINED ENV{${name}})
      set(ANDROID_NDK "$ENV{${name}}")
    endif()
  endforeach()
endif()
if(NOT EXISTS "${ANDROID_NDK}/build/cmake/android.toolchain.cmake")
  message(FATAL_ERROR "The Android NDK is wanted: its folder in ANDROID_NDK or ANDROID_NDK_ROOT (now: \"${ANDROID_NDK}\")")
endif()
set(ANDROID_ABI arm64-v8a)
set(ANDROID_PLATFORM android-21)
set(ANDROID_STL c++_static)
include("${ANDROID_NDK}/build/cmake/android.toolchain.cmake")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_NDK)
add_link_options(-Wl,-z,max-page-size=16384)
