# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_portok_global_optspecs
    string join \n url= socket= instance= app= token= json h/help V/version
end

function __fish_portok_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_portok_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_portok_using_subcommand
    set -l cmd (__fish_portok_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c portok -n "__fish_portok_needs_command" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_needs_command" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_needs_command" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_needs_command" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_needs_command" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_needs_command" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_needs_command" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_needs_command" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_needs_command" -f -a "run" -d 'Run the daemon in the foreground with one app: no file, no token, no root'
complete -c portok -n "__fish_portok_needs_command" -f -a "deploy" -d 'Start a release, move traffic to it once it is healthy, drain and stop the old one'
complete -c portok -n "__fish_portok_needs_command" -f -a "switch" -d 'Move traffic to an app that somebody else started on this host'
complete -c portok -n "__fish_portok_needs_command" -f -a "rollback" -d 'Go back to the previous release, starting it again where its process is gone'
complete -c portok -n "__fish_portok_needs_command" -f -a "cancel" -d 'End a deploy that has not moved traffic yet'
complete -c portok -n "__fish_portok_needs_command" -f -a "pause" -d 'Have the app\'s requests wait, until `portok resume` or the end of a time'
complete -c portok -n "__fish_portok_needs_command" -f -a "resume" -d 'Let the requests go that `portok pause` holds, the oldest first'
complete -c portok -n "__fish_portok_needs_command" -f -a "maintenance" -d 'Answer every request of the app with a page, or stop that'
complete -c portok -n "__fish_portok_needs_command" -f -a "freeze" -d 'Stop deploys and switches, until `portok thaw` or the end of a time'
complete -c portok -n "__fish_portok_needs_command" -f -a "thaw" -d 'Let deploys and switches go on, with the edit that waited'
complete -c portok -n "__fish_portok_needs_command" -f -a "scale" -d 'Have another number of processes, whatever the file says, until it says something else'
complete -c portok -n "__fish_portok_needs_command" -f -a "drain" -d 'Show who is still with the old version, or change when its drain ends'
complete -c portok -n "__fish_portok_needs_command" -f -a "status" -d 'Show what is live, what goes on and what is wrong'
complete -c portok -n "__fish_portok_needs_command" -f -a "apps" -d 'List the apps of an instance: for which hosts, what is live, how much is asked and what fails'
complete -c portok -n "__fish_portok_needs_command" -f -a "ps" -d 'List the processes and targets: what each does, how much it has in flight, its memory'
complete -c portok -n "__fish_portok_needs_command" -f -a "certs" -d 'List the certificates that clients are shown: for which hosts, until when, what is wrong'
complete -c portok -n "__fish_portok_needs_command" -f -a "metrics" -d 'Show requests, errors and the live target\'s health as numbers'
complete -c portok -n "__fish_portok_needs_command" -f -a "health" -d 'Ask the live target for its health now; exit code 1 when it is not healthy'
complete -c portok -n "__fish_portok_needs_command" -f -a "releases" -d 'List the known releases, newest first'
complete -c portok -n "__fish_portok_needs_command" -f -a "logs" -d 'Show what the app printed; with an instance\'s name, what its daemon said too'
complete -c portok -n "__fish_portok_needs_command" -f -a "reload" -d 'Load the configuration file again and tell what changed'
complete -c portok -n "__fish_portok_needs_command" -f -a "upgrade" -d 'Put a new portokd in the running one\'s place, without losing a connection'
complete -c portok -n "__fish_portok_needs_command" -f -a "shutdown" -d 'End the daemon in order, and tell how each process of its apps ended'
complete -c portok -n "__fish_portok_needs_command" -f -a "init" -d 'Prepare this host: folders and systemd units; may be repeated'
complete -c portok -n "__fish_portok_needs_command" -f -a "add" -d 'Write the configuration of a new instance, with a token and free ports; with --to, of a new app'
complete -c portok -n "__fish_portok_needs_command" -f -a "remove" -d 'Stop an instance and remove its configuration, token and state; of INSTANCE/APP, the app\'s file'
complete -c portok -n "__fish_portok_needs_command" -f -a "clean" -d 'Remove everything that portok made on this host; without --force only tell what that is'
complete -c portok -n "__fish_portok_needs_command" -f -a "list" -d 'Show every instance with what is live'
complete -c portok -n "__fish_portok_needs_command" -f -a "ls" -d 'Show every instance with what is live'
complete -c portok -n "__fish_portok_needs_command" -f -a "start" -d 'Start an instance\'s daemon, and with it the app'
complete -c portok -n "__fish_portok_needs_command" -f -a "stop" -d 'Stop an instance: requests finish, the app is stopped, then the daemon ends'
complete -c portok -n "__fish_portok_needs_command" -f -a "restart" -d 'Restart an instance\'s daemon'
complete -c portok -n "__fish_portok_needs_command" -f -a "enable" -d 'Start an instance at every boot'
complete -c portok -n "__fish_portok_needs_command" -f -a "disable" -d 'No longer start an instance at boot'
complete -c portok -n "__fish_portok_needs_command" -f -a "doctor" -d 'Check this host and every instance, and say what to do; exit code 1 when something is wrong'
complete -c portok -n "__fish_portok_needs_command" -f -a "import" -d 'Print another tool\'s configuration in portok\'s terms, and say what has no counterpart'
complete -c portok -n "__fish_portok_needs_command" -f -a "completions" -d 'Print the completions of a shell'
complete -c portok -n "__fish_portok_needs_command" -f -a "man" -d 'Write the man pages portok.1 and portokd.8 into a folder'
complete -c portok -n "__fish_portok_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portok -n "__fish_portok_using_subcommand run" -l listen -d 'The address to accept requests on; a port alone is one of 127.0.0.1' -r
complete -c portok -n "__fish_portok_using_subcommand run" -l health -d 'The path that answers 2xx when the app is healthy [default: /health, or HEALTH_PATH]' -r
complete -c portok -n "__fish_portok_using_subcommand run" -l cmd -d 'What to run, by `/bin/sh -c`; `{port}` stands for the port, which is in `$PORT` too' -r
complete -c portok -n "__fish_portok_using_subcommand run" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand run" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand run" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand run" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand run" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand run" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand run" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand run" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand deploy" -l cmd -d 'What to run, by `/bin/sh -c`; `{port}` stands for the port, which is in `$PORT` too' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l env -d 'Add a variable to the app\'s environment; may be given several times' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l dir -d 'The directory to run it in [default for --cmd: app.directory, else the current one]' -r -F
complete -c portok -n "__fish_portok_using_subcommand deploy" -l release -d 'The release\'s id (made by the daemon when not given)' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l health -d 'The health path of this release' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l strategy -d 'How it takes over, `switch` or `recreate` [default: deploy.strategy]' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand deploy" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand deploy" -l force -d 'Also a release that is live already (a fresh process of it), or in quarantine'
complete -c portok -n "__fish_portok_using_subcommand deploy" -l detach -d 'Return once the deploy is accepted'
complete -c portok -n "__fish_portok_using_subcommand deploy" -l wait-window -d 'Return only when the watch window has passed, so that a rollback is seen'
complete -c portok -n "__fish_portok_using_subcommand deploy" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand deploy" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand deploy" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand switch" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand switch" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand switch" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand switch" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand switch" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand switch" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand switch" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand switch" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand rollback" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand rollback" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand rollback" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand rollback" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand rollback" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand rollback" -l dry-run -d 'Say what would happen, and change nothing'
complete -c portok -n "__fish_portok_using_subcommand rollback" -l force -d 'Also to a release in quarantine'
complete -c portok -n "__fish_portok_using_subcommand rollback" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand rollback" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand rollback" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand cancel" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand cancel" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand cancel" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand cancel" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand cancel" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand cancel" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand cancel" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand cancel" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand pause" -l for -d 'How long, at most 10m [default: hold.max_time]' -r
complete -c portok -n "__fish_portok_using_subcommand pause" -l by -d 'Who does it, for those who look [default: your user]' -r
complete -c portok -n "__fish_portok_using_subcommand pause" -l note -d 'Why, for those who look' -r
complete -c portok -n "__fish_portok_using_subcommand pause" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand pause" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand pause" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand pause" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand pause" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand pause" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand pause" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand pause" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand resume" -l by -d 'Who does it, for those who look [default: your user]' -r
complete -c portok -n "__fish_portok_using_subcommand resume" -l note -d 'Why, for those who look' -r
complete -c portok -n "__fish_portok_using_subcommand resume" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand resume" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand resume" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand resume" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand resume" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand resume" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand resume" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand resume" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l page -d 'What clients see, in HTML, at most 256 KiB' -r -F
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l status -d 'The status of the answers [default: 503]' -r
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l by -d 'Who does it, for those who look [default: your user]' -r
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l note -d 'Why, for those who look' -r
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand maintenance" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand maintenance" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand maintenance" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand freeze" -l for -d 'How long [default: until portok thaw]' -r
complete -c portok -n "__fish_portok_using_subcommand freeze" -l by -d 'Who does it, for those who look [default: your user]' -r
complete -c portok -n "__fish_portok_using_subcommand freeze" -l note -d 'Why, for those who look' -r
complete -c portok -n "__fish_portok_using_subcommand freeze" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand freeze" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand freeze" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand freeze" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand freeze" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand freeze" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand freeze" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand freeze" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand thaw" -l by -d 'Who does it, for those who look [default: your user]' -r
complete -c portok -n "__fish_portok_using_subcommand thaw" -l note -d 'Why, for those who look' -r
complete -c portok -n "__fish_portok_using_subcommand thaw" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand thaw" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand thaw" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand thaw" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand thaw" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand thaw" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand thaw" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand thaw" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand scale" -l by -d 'Who does it, for those who look [default: your user]' -r
complete -c portok -n "__fish_portok_using_subcommand scale" -l note -d 'Why, for those who look' -r
complete -c portok -n "__fish_portok_using_subcommand scale" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand scale" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand scale" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand scale" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand scale" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand scale" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand scale" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand scale" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand drain" -l extend -d 'Have the drain end so much later, at most 24h' -r
complete -c portok -n "__fish_portok_using_subcommand drain" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand drain" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand drain" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand drain" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand drain" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand drain" -l now -d 'Have it end now'
complete -c portok -n "__fish_portok_using_subcommand drain" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand drain" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand drain" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand status" -l wait -d 'Return when the app, or every app of the instance, is healthy; exit code 1 after this time' -r
complete -c portok -n "__fish_portok_using_subcommand status" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand status" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand status" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand status" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand status" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand status" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand status" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand status" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand apps" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand apps" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand apps" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand apps" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand apps" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand apps" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand apps" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand apps" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand ps" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand ps" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand ps" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand ps" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand ps" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand ps" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand ps" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand ps" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand certs" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand certs" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand certs" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand certs" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand certs" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand certs" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand certs" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand certs" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand metrics" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand metrics" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand metrics" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand metrics" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand metrics" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand metrics" -l prometheus -d 'Print the Prometheus text format'
complete -c portok -n "__fish_portok_using_subcommand metrics" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand metrics" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand health" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand health" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand health" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand health" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand health" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand health" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand health" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand health" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand releases" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand releases" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand releases" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand releases" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand releases" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand releases" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand releases" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand releases" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand logs" -l release -d 'Only this release\'s lines' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -l replica -d 'Only the lines of replicas of this number' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -l process -d 'Only the lines of this companion; `web`: of the replicas that get requests' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -s n -l lines -d 'How many of the last lines' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand logs" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand logs" -s f -l follow -d 'Go on with each new line'
complete -c portok -n "__fish_portok_using_subcommand logs" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand logs" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand logs" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand reload" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand reload" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand reload" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand reload" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand reload" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand reload" -l prune -d 'Remove the apps that are gone from the configuration, however many they are'
complete -c portok -n "__fish_portok_using_subcommand reload" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand reload" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand reload" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l binary -d 'The new program [default: the path that the running daemon was started from]' -r -F
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l wait -d 'While the daemon is busy with a deploy or a crashed app, try again for so long, like 10m' -r
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand upgrade" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand upgrade" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand upgrade" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand shutdown" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand shutdown" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand shutdown" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand shutdown" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand shutdown" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand shutdown" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand shutdown" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand shutdown" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand init" -l user -d 'The user that portokd runs as; `root` takes an earlier choice back' -r
complete -c portok -n "__fish_portok_using_subcommand init" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand init" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand init" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand init" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand init" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand init" -l dry-run -d 'Tell what would be done and do nothing'
complete -c portok -n "__fish_portok_using_subcommand init" -l force -d 'Replace a unit file that portok did not write'
complete -c portok -n "__fish_portok_using_subcommand init" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand init" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand init" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand add" -l port -d 'The public port [default: the first free one from 3000 on]' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l target -d 'The port on 127.0.0.1 of an app that somebody else starts [default: a free one from 8080 on]; with --to also an address, and several' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l cmd -d 'What portok runs, by `/bin/sh -c`; `{port}` stands for the port, which is in `$PORT` too' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l dir -d 'The directory to run it in' -r -F
complete -c portok -n "__fish_portok_using_subcommand add" -l health -d 'The path that answers 2xx when the app is healthy' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l to -d 'Add an app to this instance, which has several' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l host -d 'A host of the app, like api.example.com or *.example.com; may be given several times [default: every one]' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l path -d 'The beginning of the app\'s paths; may be given several times [default: /]' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l listen -d 'An address or a port on which the app alone answers; may be given several times' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l redirect -d 'Send clients to this address instead, with the path and query that they asked for' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand add" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand add" -l toml -d 'Write NAME.toml; without --cmd and --target, the first `portok deploy` says what runs'
complete -c portok -n "__fish_portok_using_subcommand add" -l env -d 'Write NAME.env'
complete -c portok -n "__fish_portok_using_subcommand add" -l force -d 'Overwrite an instance of that name, and take ports that are in use'
complete -c portok -n "__fish_portok_using_subcommand add" -l strip-prefix -d 'Take that beginning off before the app gets the path'
complete -c portok -n "__fish_portok_using_subcommand add" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand add" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand add" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand remove" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand remove" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand remove" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand remove" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand remove" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand remove" -l force -d 'Stop it if it runs'
complete -c portok -n "__fish_portok_using_subcommand remove" -l keep-state -d 'Leave its state file'
complete -c portok -n "__fish_portok_using_subcommand remove" -l dry-run -d 'Only tell what would be done'
complete -c portok -n "__fish_portok_using_subcommand remove" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand remove" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand remove" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand clean" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand clean" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand clean" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand clean" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand clean" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand clean" -l force -d 'Do it'
complete -c portok -n "__fish_portok_using_subcommand clean" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand clean" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand clean" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand list" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand list" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand list" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand list" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand list" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand list" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand list" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand list" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand ls" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand ls" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand ls" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand ls" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand ls" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand ls" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand ls" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand ls" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand start" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand start" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand start" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand start" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand start" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand start" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand start" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand start" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand stop" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand stop" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand stop" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand stop" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand stop" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand stop" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand stop" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand stop" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand restart" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand restart" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand restart" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand restart" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand restart" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand restart" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand restart" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand restart" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand enable" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand enable" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand enable" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand enable" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand enable" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand enable" -l now -d 'And start (or stop) it now'
complete -c portok -n "__fish_portok_using_subcommand enable" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand enable" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand enable" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand disable" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand disable" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand disable" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand disable" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand disable" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand disable" -l now -d 'And start (or stop) it now'
complete -c portok -n "__fish_portok_using_subcommand disable" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand disable" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand disable" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand doctor" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand doctor" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand doctor" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand doctor" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand doctor" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand doctor" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand doctor" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand import" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand import" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand import" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand import" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand import" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand import" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c portok -n "__fish_portok_using_subcommand import" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand completions" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand completions" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand completions" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand completions" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand completions" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand completions" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c portok -n "__fish_portok_using_subcommand completions" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand man" -l url -d 'Where the daemon listens, `http://host:port`; a path is taken as the admin prefix' -r
complete -c portok -n "__fish_portok_using_subcommand man" -l socket -d 'The daemon\'s unix socket' -r -F
complete -c portok -n "__fish_portok_using_subcommand man" -l instance -d 'The instance\'s name; its file says where the daemon is. NAME/APP names one of its apps too' -r
complete -c portok -n "__fish_portok_using_subcommand man" -l app -d 'The app, where the instance has several' -r
complete -c portok -n "__fish_portok_using_subcommand man" -l token -d 'The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)' -r
complete -c portok -n "__fish_portok_using_subcommand man" -l json -d 'Print one JSON value on standard output and nothing else there'
complete -c portok -n "__fish_portok_using_subcommand man" -s h -l help -d 'Print help'
complete -c portok -n "__fish_portok_using_subcommand man" -s V -l version -d 'Print version'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "run" -d 'Run the daemon in the foreground with one app: no file, no token, no root'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "deploy" -d 'Start a release, move traffic to it once it is healthy, drain and stop the old one'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "switch" -d 'Move traffic to an app that somebody else started on this host'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "rollback" -d 'Go back to the previous release, starting it again where its process is gone'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "cancel" -d 'End a deploy that has not moved traffic yet'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "pause" -d 'Have the app\'s requests wait, until `portok resume` or the end of a time'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "resume" -d 'Let the requests go that `portok pause` holds, the oldest first'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "maintenance" -d 'Answer every request of the app with a page, or stop that'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "freeze" -d 'Stop deploys and switches, until `portok thaw` or the end of a time'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "thaw" -d 'Let deploys and switches go on, with the edit that waited'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "scale" -d 'Have another number of processes, whatever the file says, until it says something else'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "drain" -d 'Show who is still with the old version, or change when its drain ends'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "status" -d 'Show what is live, what goes on and what is wrong'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "apps" -d 'List the apps of an instance: for which hosts, what is live, how much is asked and what fails'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "ps" -d 'List the processes and targets: what each does, how much it has in flight, its memory'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "certs" -d 'List the certificates that clients are shown: for which hosts, until when, what is wrong'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "metrics" -d 'Show requests, errors and the live target\'s health as numbers'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "health" -d 'Ask the live target for its health now; exit code 1 when it is not healthy'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "releases" -d 'List the known releases, newest first'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "logs" -d 'Show what the app printed; with an instance\'s name, what its daemon said too'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "reload" -d 'Load the configuration file again and tell what changed'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "upgrade" -d 'Put a new portokd in the running one\'s place, without losing a connection'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "shutdown" -d 'End the daemon in order, and tell how each process of its apps ended'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "init" -d 'Prepare this host: folders and systemd units; may be repeated'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "add" -d 'Write the configuration of a new instance, with a token and free ports; with --to, of a new app'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "remove" -d 'Stop an instance and remove its configuration, token and state; of INSTANCE/APP, the app\'s file'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "clean" -d 'Remove everything that portok made on this host; without --force only tell what that is'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "list" -d 'Show every instance with what is live'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "start" -d 'Start an instance\'s daemon, and with it the app'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "stop" -d 'Stop an instance: requests finish, the app is stopped, then the daemon ends'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "restart" -d 'Restart an instance\'s daemon'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "enable" -d 'Start an instance at every boot'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "disable" -d 'No longer start an instance at boot'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "doctor" -d 'Check this host and every instance, and say what to do; exit code 1 when something is wrong'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "import" -d 'Print another tool\'s configuration in portok\'s terms, and say what has no counterpart'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "completions" -d 'Print the completions of a shell'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "man" -d 'Write the man pages portok.1 and portokd.8 into a folder'
complete -c portok -n "__fish_portok_using_subcommand help; and not __fish_seen_subcommand_from run deploy switch rollback cancel pause resume maintenance freeze thaw scale drain status apps ps certs metrics health releases logs reload upgrade shutdown init add remove clean list start stop restart enable disable doctor import completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
