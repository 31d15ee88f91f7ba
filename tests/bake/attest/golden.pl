#!/usr/bin/perl
# The content digests of test_merkle.py, computed by the definition and by no code of bake's:
#   perl tests/bake/attest/golden.pl
use strict;
use warnings;
use Digest::SHA qw(sha256 sha256_hex);

my $BLOCK = 524288;

sub mth {
    my ($leaves, $from, $count) = @_;
    return sha256("\x00" . $leaves->[$from]) if $count == 1;
    my $k = 1;
    $k *= 2 while 2 * $k < $count;
    return sha256("\x01" . mth($leaves, $from, $k) . mth($leaves, $from + $k, $count - $k));
}

sub content {
    my ($gib, %blocks) = @_;
    my $zero = sha256("\0" x $BLOCK);
    my @leaves = map { exists $blocks{$_} ? sha256($blocks{$_}) : $zero } 0 .. $gib * 2048 - 1;
    return sha256_hex("bake-content/1\n" . pack("Q>", $gib * 1073741824) . mth(\@leaves, 0, scalar @leaves));
}

print "EMPTY1  ", content(1), "\n";
print "EMPTY80 ", content(80), "\n";
print "ENDS    ", content(1, 0 => "a" x $BLOCK, 2047 => "z" x $BLOCK), "\n";
print "THREE   ", content(3, 1 => "\x01" . "\0" x ($BLOCK - 1), 4097 => "b" x $BLOCK), "\n";
