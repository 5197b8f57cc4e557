# A draft-76 client (under its other name, draft-ietf-hybi-00): Perl's Protocol::WebSocket.
# Controlled as described in README.md: perl client_hybi00.pl URL

use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Protocol::WebSocket::Frame;
use Protocol::WebSocket::Handshake::Client;
use Protocol::WebSocket::URL;

my $json = JSON::PP->new->canonical->utf8;
$| = 1;

sub report { print $json->encode({@_}), "\n" }

my %version = (version => 'draft-ietf-hybi-00');
my $handshake = Protocol::WebSocket::Handshake::Client->new(url => $ARGV[0], %version);
$handshake->req->origin('http://localhost');
my $url = Protocol::WebSocket::URL->new->parse($ARGV[0]);
my $socket = IO::Socket::INET->new(PeerAddr => $url->host, PeerPort => $url->port) or die "$ARGV[0]: $@";
$socket->syswrite($handshake->to_string);

my $frames   = Protocol::WebSocket::Frame->new(%version);
my $ready    = IO::Select->new($socket, \*STDIN);
my ($orders, $closing) = ('', 0);
while (my @readable = $ready->can_read) {
    for my $from (@readable) {
        my $got = sysread $from, my $bytes, 65536;
        if ($from == \*STDIN) {
            if (!$got) { $ready->remove($from); next }
            $orders .= $bytes;
            while ($orders =~ s/^(.*)\n//) {
                my $order = $json->decode($1);
                $closing = 1 if $order->{do} eq 'close';
                my %frame = $closing ? (type => 'close') : (buffer => $order->{text});
                $socket->syswrite(Protocol::WebSocket::Frame->new(%version, %frame)->to_bytes);
            }
            next;
        }
        if (!$got) { report(event => 'closed', clean => JSON::PP::false); exit }
        if (!$handshake->is_done) {
            $handshake->parse($bytes) or die 'the handshake: ' . $handshake->error . "\n";
            next unless $handshake->is_done;
            report(event => 'open');
        }
        $frames->append($bytes);
        while (defined(my $text = $frames->next)) {
            if (!$frames->is_close) { report(event => 'text', text => $text); next }
            $socket->syswrite(Protocol::WebSocket::Frame->new(%version, type => 'close')->to_bytes) unless $closing;
            report(event => 'closed', clean => JSON::PP::true);
            exit;
        }
    }
}
