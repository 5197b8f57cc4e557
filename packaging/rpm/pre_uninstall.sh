# $1 is the number of versions that will remain: 0, unless this is an upgrade.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload disable --now pushd.service pushd-socket.service pushd-socket.socket || :
fi
