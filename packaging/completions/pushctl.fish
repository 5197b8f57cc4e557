# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pushctl_global_optspecs
    string join \n h/help V/version
end

function __fish_pushctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pushctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pushctl_using_subcommand
    set -l cmd (__fish_pushctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pushctl -n "__fish_pushctl_needs_command" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_needs_command" -s V -l version -d 'Print version'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "check" -d 'Report everything wrong with a configuration (exit code 78), or that nothing is (0)'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "config" -d 'Look at a configuration as a whole: the file, its drop-ins and the defaults'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "diff" -d 'Show which keys another configuration would change, and when: at once, for new connections, or by a restart'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "publish" -d 'Publish a message, and print the server\'s answer'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "key" -d 'Make a secret for a key or for tokens'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "token" -d 'Make a token from the secret in the configuration, or look at one'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "subscribe" -d 'Print what comes over a WebSocket, one message a line'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "connect" -d 'Talk over a WebSocket: send lines, print what comes'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "status" -d 'Say whether pushd runs (exit code 0) or not (3), and a few figures from its metrics'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "reload" -d 'Have pushd read its configuration again, and wait until it has; what is refused changes nothing'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "stop" -d 'End pushd gracefully, and wait until it has ended'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "bench" -d 'Measure a route of WebSockets or event streams: connections, deliveries a second, latency, and whether anything is lost'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "store" -d 'Look at the store of durable history, take messages out of it, put messages into it'
complete -c pushctl -n "__fish_pushctl_needs_command" -f -a "completions" -d 'Print what a shell needs to complete pushctl on TAB'
complete -c pushctl -n "__fish_pushctl_using_subcommand check" -l unit -d 'Rehearse a start of this systemd unit instead: with its file, its user and its sandbox' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand check" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand config; and not __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand config; and not __fish_seen_subcommand_from show" -f -a "show" -d 'Print the effective value of every key, and where it is set'
complete -c pushctl -n "__fish_pushctl_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand diff" -s c -l config -d 'The configuration that pushd runs on' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand diff" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand publish" -l url -d 'The publish route a channel goes to' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand publish" -l key-file -d 'Show the key in this file' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand publish" -l binary -d 'Send the bytes as a binary message'
complete -c pushctl -n "__fish_pushctl_using_subcommand publish" -l batch -d 'Send standard input as a batch: a JSON object with channel and data on each line, or an array of them. The target is the URL of a route with batch = true'
complete -c pushctl -n "__fish_pushctl_using_subcommand publish" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand key; and not __fish_seen_subcommand_from new" -l file -d 'The file, which must not exist [default: NAME.key]' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand key; and not __fish_seen_subcommand_from new" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand key; and not __fish_seen_subcommand_from new" -f -a "new" -d 'Write a new secret to a file that only this user can read, and print what to write into the configuration'
complete -c pushctl -n "__fish_pushctl_using_subcommand key; and __fish_seen_subcommand_from new" -l file -d 'The file, which must not exist [default: NAME.key]' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand key; and __fish_seen_subcommand_from new" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and not __fish_seen_subcommand_from make check" -s c -l config -d 'The configuration' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and not __fish_seen_subcommand_from make check" -l name -d 'NAME in [token.NAME]; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and not __fish_seen_subcommand_from make check" -l ttl -d 'How long a new token is good' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and not __fish_seen_subcommand_from make check" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and not __fish_seen_subcommand_from make check" -f -a "make" -d 'Print a token with these claims, signed with the first secret'
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and not __fish_seen_subcommand_from make check" -f -a "check" -d 'Print what a token says, and whether it is good (exit code 1 if not)'
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from make" -s c -l config -d 'The configuration' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from make" -l name -d 'NAME in [token.NAME]; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from make" -l ttl -d 'How long a new token is good' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from make" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from check" -s c -l config -d 'The configuration' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from check" -l name -d 'NAME in [token.NAME]; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from check" -l ttl -d 'How long a new token is good' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand token; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand subscribe" -l count -d 'End after N messages' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand subscribe" -l timeout -d 'End after so long, as in 500ms, 10s, 2m; a bare number is in seconds' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand subscribe" -l origin -d 'Connect as a page of this origin would' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand subscribe" -l binary -d 'Print binary messages as they are, with nothing added [default: "(N bytes)"]'
complete -c pushctl -n "__fish_pushctl_using_subcommand subscribe" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand connect" -l timeout -d 'How long answers are waited for [default: 5s]; a bare number is in seconds' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand connect" -l subprotocol -d 'Offer this subprotocol, or several with commas between' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand connect" -l origin -d 'Connect as a page of this origin would' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand connect" -l binary -d 'Print binary messages as they are, with nothing added [default: "(N bytes)"]'
complete -c pushctl -n "__fish_pushctl_using_subcommand connect" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand status" -s c -l config -d 'The configuration that it runs with, which names its pidfile. A pushd that runs with another one is left alone [default: look for pushd.pid, or what /etc/pushd/config.toml calls it, in the current directory, then in /run/pushd]' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand status" -l pidfile -d 'Its pidfile, whatever configuration it runs with' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand status" -l url -d 'Its metrics, as in http://127.0.0.1:8888/metrics [default: found in the configuration]' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand reload" -s c -l config -d 'The configuration that it runs with, which names its pidfile. A pushd that runs with another one is left alone [default: look for pushd.pid, or what /etc/pushd/config.toml calls it, in the current directory, then in /run/pushd]' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand reload" -l pidfile -d 'Its pidfile, whatever configuration it runs with' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand stop" -s c -l config -d 'The configuration that it runs with, which names its pidfile. A pushd that runs with another one is left alone [default: look for pushd.pid, or what /etc/pushd/config.toml calls it, in the current directory, then in /run/pushd]' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand stop" -l pidfile -d 'Its pidfile, whatever configuration it runs with' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand stop" -l now -d 'Do not wait for the grace: clients are cut off'
complete -c pushctl -n "__fish_pushctl_using_subcommand stop" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l connections -d 'How many subscribers' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l size -d 'Bytes of each message, as in 64 or 1KiB' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l window -d 'How many messages may be on their way at once; with --echo, for each connection' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l duration -d 'How long deliveries are counted, as in 500ms, 10s, 2m; a bare number is in seconds' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l publish -d 'Post the messages to this publish route, one after the other [default: the first subscriber sends them]' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l pid -d 'The server\'s process on this machine: adds what it costs' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l echo -d 'Each subscriber sends its own messages and receives them back'
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l events -d 'The subscribers are event streams; requires --publish, because no messages can be sent on them'
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l spin -d 'Never sleep while deliveries are counted: takes a processor, and spares the server the time to wake this program'
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -l json -d 'Print the figures as JSON'
complete -c pushctl -n "__fish_pushctl_using_subcommand bench" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -s c -l config -d 'The configuration, whose `[store]` names the directory' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -l dir -d 'The directory of the store, whatever the configuration says' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -l hub -d 'The hub, for export and import; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -f -a "check" -d 'Check every message, table and index; report what is damaged (exit code 1)'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -f -a "stats" -d 'Print what the store holds'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -f -a "export" -d 'Print the messages of a channel, oldest first, as lines of JSON'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and not __fish_seen_subcommand_from check stats export import" -f -a "import" -d 'Append messages from standard input, in the lines that export prints. pushd must not run'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from check" -s c -l config -d 'The configuration, whose `[store]` names the directory' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from check" -l dir -d 'The directory of the store, whatever the configuration says' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from check" -l hub -d 'The hub, for export and import; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from stats" -s c -l config -d 'The configuration, whose `[store]` names the directory' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from stats" -l dir -d 'The directory of the store, whatever the configuration says' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from stats" -l hub -d 'The hub, for export and import; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from export" -s c -l config -d 'The configuration, whose `[store]` names the directory' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from export" -l dir -d 'The directory of the store, whatever the configuration says' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from export" -l hub -d 'The hub, for export and import; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from import" -s c -l config -d 'The configuration, whose `[store]` names the directory' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from import" -l dir -d 'The directory of the store, whatever the configuration says' -r -F
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from import" -l hub -d 'The hub, for export and import; needed where there are several' -r
complete -c pushctl -n "__fish_pushctl_using_subcommand store; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c pushctl -n "__fish_pushctl_using_subcommand completions" -s h -l help -d 'Print help'
