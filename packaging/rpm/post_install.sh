if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers pushd.conf || :
fi
# $1 is how many versions will be installed afterwards. Where no systemd runs (an image being built) nothing is to do.
if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create pushd.conf || :
    systemctl daemon-reload || :
    if [ "$1" -gt 1 ]; then
        for unit in pushd.service pushd-socket.service; do
            if ! systemctl --quiet is-active "$unit"; then
                # One that waits for its next try has it now. Others are not started.
                systemctl try-restart "$unit" || :
            elif why=$(pushctl check --unit "$unit" 2>&1); then
                systemctl try-restart "$unit" || :
            else
                cat >&2 <<EOF
$unit was not restarted, because the new version could not start:
$why
The version before goes on and keeps its clients. Mend this, then: systemctl restart $unit
EOF
            fi
        done
    fi
fi
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload preset pushd.service || :
fi
