# Flags that every target has, and the functions that make a folder's library and its tests.
add_library(artel_flags INTERFACE)
target_compile_definitions(artel_flags INTERFACE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE
                           ARTEL_VERSION="${PROJECT_VERSION}")
target_compile_options(artel_flags INTERFACE
  -fno-math-errno -ffp-contract=off -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes
  -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings -Wpointer-arith -Wformat=2)
if(ARTEL_WERROR)
  target_compile_options(artel_flags INTERFACE -Werror)
endif()
if(ARTEL_SANITIZE)
  target_compile_options(artel_flags INTERFACE -fsanitize=${ARTEL_SANITIZE}
                         -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(artel_flags INTERFACE -fsanitize=${ARTEL_SANITIZE})
endif()
if(ARTEL_FUZZ)
  target_compile_options(artel_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
target_include_directories(artel_flags INTERFACE ${PROJECT_SOURCE_DIR}/include
                           ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(artel_flags INTERFACE m OpenMP::OpenMP_C)

# Files named *_avx2.c, *_avx512.c, *_avx512bf16.c and *_amx.c are built for that
# instruction set alone.
set(ARTEL_FLAGS_avx2 -mavx2;-mfma;-mf16c)
set(ARTEL_FLAGS_avx512
    -mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl)
set(ARTEL_FLAGS_avx512bf16 ${ARTEL_FLAGS_avx512};-mavx512bf16)
set(ARTEL_FLAGS_amx ${ARTEL_FLAGS_avx512bf16};-mamx-tile;-mamx-bf16)

function(artel_isa_flags)
  foreach(file IN LISTS ARGN)
    if(file MATCHES "_(avx2|avx512|avx512bf16|amx)\\.c$")
      set(isa ${CMAKE_MATCH_1}) # before the next MATCHES forgets it
      if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS
                                    "${ARTEL_FLAGS_${isa}}")
      endif()
    endif()
  endforeach()
endfunction()

# Files named *_bf16.c are built once for each set that multiplies bf16 (tiles/tile_built.h):
# by a file of two lines each, whose own name tells the flags.
function(artel_bf16_sets name list)
  foreach(file IN LISTS ${list})
    if(NOT file MATCHES "/([a-z0-9_]+)_bf16\\.c$")
      list(APPEND all ${file})
      continue()
    endif()
    foreach(isa amx avx512bf16)
      set(built ${CMAKE_CURRENT_BINARY_DIR}/${name}/${CMAKE_MATCH_1}_${isa}.c)
      string(TOUPPER ${isa} upper)
      file(CONFIGURE OUTPUT ${built}
        CONTENT "#define TILES_BY_${upper}\n#include \"${file}\"\n")
      list(APPEND all ${built})
    endforeach()
  endforeach()
  set(${list} ${all} PARENT_SCOPE)
endfunction()

# What a folder has for browsers, as text in its library: FOLDER/page.css is page_css[].
function(artel_embed out name)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  file(GLOB texts CONFIGURE_DEPENDS ${folder}/*.html ${folder}/*.css ${folder}/*.js
    ${folder}/*.svg)
  foreach(text IN LISTS texts)
    get_filename_component(symbol ${text} NAME)
    string(MAKE_C_IDENTIFIER ${symbol} symbol)
    set(source ${CMAKE_CURRENT_BINARY_DIR}/${symbol}.c)
    add_custom_command(OUTPUT ${source}
      COMMAND ${CMAKE_COMMAND} -DFILE=${text} -DNAME=${symbol} -DOUT=${source}
        -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
      DEPENDS ${text} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
    list(APPEND sources ${source})
  endforeach()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

# artel_folder(name [libraries]): the static library of src/name.
function(artel_folder name)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.c)
  if(ARTEL_LEAVE_OUT)
    list(FILTER files EXCLUDE REGEX "${ARTEL_LEAVE_OUT}")
  endif()
  if(files)
    artel_bf16_sets(${name} files)
    artel_embed(texts ${name})
    add_library(artel_${name} STATIC ${files} ${texts})
    artel_isa_flags(${files})
    target_compile_options(artel_${name} PRIVATE -Wdouble-promotion)
    target_link_libraries(artel_${name} PUBLIC artel_flags ${ARGN})
  else()
    add_library(artel_${name} INTERFACE)
    target_link_libraries(artel_${name} INTERFACE artel_flags ${ARGN})
  endif()
endfunction()
