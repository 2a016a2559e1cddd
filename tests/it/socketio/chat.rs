//! `examples/socketio-chat`: its clients through nginx, on three nodes.
