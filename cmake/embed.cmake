# cmake -DFILE=... -DNAME=... -DOUT=... -P embed.cmake: a text file as a C string.
file(READ ${FILE} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)"
  "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "0x([89a-f])" "(char)0x\\1" bytes "${bytes}") # beyond ASCII
file(WRITE ${OUT} "extern const char ${NAME}[];\nconst char ${NAME}[] = {\n${bytes}0};\n")
