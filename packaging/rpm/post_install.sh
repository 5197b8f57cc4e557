if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers pushd.conf || :
fi
# $1 is the number of versions that will be installed afterwards. If systemd does not run (while an image is built), there is
# nothing to do.
if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create pushd.conf || :
    systemctl daemon-reload || :
    if [ "$1" -gt 1 ]; then
        for unit in pushd.service pushd-socket.service; do
            if ! systemctl --quiet is-active "$unit"; then
                # A service that waits for its next start attempt is started now. A stopped one is not.
                systemctl try-restart "$unit" || :
            elif why=$(pushctl check --unit "$unit" 2>&1); then
                systemctl try-restart "$unit" || :
            else
                cat >&2 <<EOF
$unit was not restarted, because the new version could not start:
$why
The previous version keeps running with its clients. Solve this problem, then run: systemctl restart $unit
EOF
            fi
        done
    fi
fi
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload preset pushd.service || :
fi
