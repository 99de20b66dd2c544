# Sourced by packaging/build: a deb by dpkg-deb itself, which every Debian has. What cargo-deb would add (dependencies, systemd
# snippets) is written out beside this file, and costs no two minutes of compiling a tool.

# The newest C library that is asked for. Debian 12 has 2.36, Ubuntu 22.04 has 2.35.
GLIBC=2.34

build_deb() { # ARCH
    local arch=$1 triple strip objdump
    case $arch in
        amd64) triple=x86_64-unknown-linux-gnu strip=strip objdump=objdump ;;
        arm64) triple=aarch64-unknown-linux-gnu strip=aarch64-linux-gnu-strip objdump=aarch64-linux-gnu-objdump ;;
    esac
    need dpkg-deb=dpkg strip=binutils gzip=gzip
    if [ "$arch" = arm64 ]; then
        need aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu aarch64-linux-gnu-strip=binutils-aarch64-linux-gnu
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    fi
    [ "$triple" = "$(rustc -vV | sed -n 's/^host: //p')" ] || "$here/rust-std" "$triple"
    local programs_of_target=$programs
    if [ -z "$programs" ] || [ "$arch" != amd64 ]; then build_programs "$triple"; fi
    local changes
    changes=$(sed -n '1s/^swarmd (\(.*\)).*/\1/p' "$here/debian/changelog")
    if [ "${changes%-*}" != "$version" ]; then
        echo "packaging/debian/changelog begins with $changes, the programs are $version" >&2
        exit 1
    fi
    local stage
    stage=$(mktemp -d)
    chmod 755 "$stage"
    stage_files "$stage" "$strip"
    check_glibc "$objdump" "$stage/usr/bin/swarmd" "$stage/usr/bin/swarmctl"
    stage_control "$stage" "$arch" "$changes"
    find "$stage" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group --uniform-compression -Zxz --build "$stage" "$out/swarmd_${changes}_$arch.deb" >/dev/null
    cp "$stage/usr/share/doc/swarmd/sbom.cdx.json" "$out/swarmd_${changes}_$arch.cdx.json"
    rm -rf "$stage"
}

stage_files() { # STAGE STRIP
    local stage=$1 strip=$2 gen
    gen=$(mktemp -d)
    for program in swarmd swarmctl; do
        install -D -m 755 "$programs_of_target/$program" "$stage/usr/bin/$program"
        "$strip" --strip-unneeded --remove-section=.comment --remove-section=.note "$stage/usr/bin/$program"
    done
    xtask man "$gen/man"
    xtask completions "$gen/completions"
    for page in "$gen"/man/*; do
        install -D -m 644 "$page" "$stage/usr/share/man/man${page##*.}/${page##*/}"
        gzip -9n "$stage/usr/share/man/man${page##*.}/${page##*/}"
    done
    for program in swarmd swarmctl; do
        install -D -m 644 "$gen/completions/bash/$program" "$stage/usr/share/bash-completion/completions/$program"
        install -D -m 644 "$gen/completions/zsh/_$program" "$stage/usr/share/zsh/vendor-completions/_$program"
        install -D -m 644 "$gen/completions/fish/$program.fish" "$stage/usr/share/fish/vendor_completions.d/$program.fish"
    done
    for unit in swarmd.service swarmd-keeper.service swarmd-keeper.socket swarmd-wg.socket swarmd-wg@.service; do
        install -D -m 644 "$here/debian/$unit" "$stage/lib/systemd/system/$unit"
    done
    install -d "$stage/etc/swarmd"
    xtask config "$stage/etc/swarmd/swarmd.toml" \
        --set 'exec.user="swarm-task"' --set 'api.group="swarm"'
    chmod 644 "$stage/etc/swarmd/swarmd.toml"
    local doc=$stage/usr/share/doc/swarmd
    install -D -m 644 "$here/debian/copyright" "$doc/copyright"
    install -m 644 "$here/debian/changelog" "$doc/changelog.Debian"
    install -m 644 "$here/CHANGELOG.md" "$doc/changelog"
    gzip -9n "$doc/changelog.Debian" "$doc/changelog"
    xtask sbom --target "$triple" "$doc/sbom.cdx.json"
    chmod 644 "$doc/sbom.cdx.json"
    install -D -m 644 "$here/debian/lintian-overrides" "$stage/usr/share/lintian/overrides/swarmd"
    rm -rf "$gen"
}

check_glibc() { # OBJDUMP FILE...
    local objdump=$1 newest
    shift
    newest=$("$objdump" -T "$@" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
    if [ "$(printf '%s\n' "$newest" "GLIBC_$GLIBC" | sort -V | tail -1)" != "GLIBC_$GLIBC" ]; then
        echo "the programs need $newest, the package says $GLIBC" >&2
        exit 1
    fi
}

stage_control() { # STAGE ARCH VERSION
    local stage=$1 control=$1/DEBIAN
    install -d "$control"
    sed -e "s/@VERSION@/$3/" -e "s/@ARCH@/$2/" -e "s/@GLIBC@/$GLIBC/" \
        -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$stage" | cut -f 1)/" "$here/debian/control.in" >"$control/control"
    echo /etc/swarmd/swarmd.toml >"$control/conffiles"
    (cd "$stage" && find . -type f ! -path './DEBIAN/*' ! -path './etc/*' -printf '%P\n' | sort | xargs md5sum) >"$control/md5sums"
    chmod 644 "$control"/*
    install -m 755 "$here/debian/postinst" "$here/debian/prerm" "$here/debian/postrm" "$control/"
}
