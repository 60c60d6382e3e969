# The usual words over CMake. `make` builds build/artel, optimised.
PREFIX = /usr/local
DESTDIR =
DATA =
WORKS =

all: packages
	@[ -f build/build.ninja ] || cmake --preset release
	@cmake --build build

# Says the one command that installs what is missing, and stops.
packages:
	@scripts/install-packages.sh --check

install: all
	@DESTDIR='$(DESTDIR)' cmake --install build --prefix '$(PREFIX)'

demo:
	@./demo.sh

check:
	@./check.sh

# The tables of the documentation, from a folder of domains.
results: all
	@[ -n '$(DATA)' ] || { echo 'usage: make results DATA=FOLDER' >&2; exit 2; }
	@scripts/results.sh '$(DATA)'

# Other programs and artel in turns: WORKS of W P256 P1000 D1, all where none is named.
peers: all
	@bench/peers/run.sh $(WORKS)

format:
	@find src include tests bench examples -name '*.[ch]' | xargs clang-format -i

clean:
	rm -rf build build-dev build-tsan build-clang build-fuzz

.PHONY: all packages install demo check results peers format clean
