if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers pushd.conf || :
fi
# $1 is how many versions will be installed afterwards. Where no systemd runs (an image being built) nothing is to do.
if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create pushd.conf || :
    systemctl daemon-reload || :
    if [ "$1" -gt 1 ]; then
        systemctl try-restart pushd.service pushd-socket.service || :
    fi
fi
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload preset pushd.service || :
fi
